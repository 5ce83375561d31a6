//  file_key.h - which version of which file, as far as a look at its folder tells

#ifndef LUNA_WORKER_FILE_KEY_H
#define LUNA_WORKER_FILE_KEY_H

#include "common/err.h"

#include <stdint.h>

//  Two files with the same key hold the same bytes, but for one that was changed in place
//  and given its old time back.
typedef struct luna_file_key {
    const char *path;  //  borrowed, unless it came from luna_file_key_copy
    uint64_t bytes;
    int64_t changed_ns;  //  since 1970
    uint64_t inode;
} luna_file_key;

//  Looks at the file; borrows `path`. LUNA_NOT_FOUND.
LUNA_MUST_USE luna_err luna_file_key_of(const char *path, luna_file_key *out);

//  The same of an open file. LUNA_IO.
LUNA_MUST_USE luna_err luna_file_key_of_open(int fd, const char *path,
                                             luna_file_key *out);

bool luna_file_key_equal(const luna_file_key *a, const luna_file_key *b);

//  With a path of its own, for luna_file_key_free. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_file_key_copy(const luna_file_key *key, luna_file_key *out);
void luna_file_key_free(luna_file_key *key);

#endif
