//  cut.h - the power cut, for the program that drives the tests

#ifndef LUNA_TESTS_FAULT_CUT_H
#define LUNA_TESTS_FAULT_CUT_H

#include <stdint.h>

//  Makes the files below `root` what a disk may hold after a power cut, and drops the
//  state: what is there then is durable. Nobody may be using either. `seed` 0 loses
//  everything that was not synced, another one a part of it. 0, or -1 with errno.
__attribute__((visibility("default"))) int faultfs_cut(const char *state,
                                                       const char *root, uint64_t seed);

#endif
