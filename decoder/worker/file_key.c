#include "decoder/worker/file_key.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static luna_file_key key_of(const char *path, const struct stat *info)
{
    return (luna_file_key){
        .path = path,
        .bytes = (uint64_t)info->st_size,
        .changed_ns = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec,
        .inode = (uint64_t)info->st_ino};
}

luna_err luna_file_key_of(const char *path, luna_file_key *out)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return luna_error_errno(LUNA_NOT_FOUND, "cannot find the VAE %s", path);
    *out = key_of(path, &info);
    return LUNA_OK;
}

luna_err luna_file_key_of_open(int fd, const char *path, luna_file_key *out)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return luna_error_errno(LUNA_IO, "cannot look at %s", path);
    *out = key_of(path, &info);
    return LUNA_OK;
}

bool luna_file_key_equal(const luna_file_key *a, const luna_file_key *b)
{
    return a->bytes == b->bytes && a->changed_ns == b->changed_ns &&
           a->inode == b->inode && strcmp(a->path, b->path) == 0;
}

luna_err luna_file_key_copy(const luna_file_key *key, luna_file_key *out)
{
    char *path = strdup(key->path);
    if (!path) return luna_error(LUNA_NO_MEMORY, "no memory for a path");
    *out = *key;
    out->path = path;
    return LUNA_OK;
}

void luna_file_key_free(luna_file_key *key)
{
    free((void *)(uintptr_t)key->path);
    *key = (luna_file_key){0};
}
