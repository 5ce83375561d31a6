//  handover.h - tells the thread sanitizer of memory that goes to another thread
//
//  libzmq hands messages from thread to thread in order, but is not built for the
//  sanitizer, which then sees no order at all. Whoever gives memory away to libzmq says
//  so before, whoever gets it says so before the first look. Costs nothing in any other
//  build.

#ifndef LUNA_COMMON_HANDOVER_H
#define LUNA_COMMON_HANDOVER_H

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define LUNA_HAND_OVER(address) __tsan_release(address)
#define LUNA_TAKE_OVER(address) __tsan_acquire(address)
#else
#define LUNA_HAND_OVER(address) ((void)(address))
#define LUNA_TAKE_OVER(address) ((void)(address))
#endif

#endif
