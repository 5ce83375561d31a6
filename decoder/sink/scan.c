#include "decoder/sink/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

luna_err luna_scan_each(int dir, void (*visit)(void *arg, int dir, const char *name),
                        void *arg)
{
    //  A descriptor of its own: a duplicate would share the position of `dir`.
    const int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (!stream) {
        const int code = errno;
        if (fd >= 0) close(fd);
        errno = code;
        return luna_error_errno(LUNA_IO, "cannot list a folder");
    }
    struct dirent *entry;
    while ((errno = 0, entry = readdir(stream))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        visit(arg, dir, entry->d_name);
    }
    const int code = errno;
    closedir(stream);
    errno = code;
    return code == 0 ? LUNA_OK : luna_error_errno(LUNA_IO, "cannot list a folder");
}

typedef struct inode_search {
    ino_t inode;
    const char *anchor;
    luna_found *out;
} inode_search;

//  The anchor is "<prefix>tmp": names of the same image begin as it does.
static void visit_inode(void *arg, int dir, const char *name)
{
    const inode_search *search = arg;
    const size_t prefix = strlen(search->anchor) - strlen("tmp");
    struct stat info;
    const bool own = strncmp(name, search->anchor, prefix) == 0;
    if (name[0] == '.' && (!own || strcmp(name, search->anchor) == 0)) return;
    if (strlen(name) >= LUNA_NAME_PART_BYTES) return;
    if (fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (info.st_ino != search->inode || !S_ISREG(info.st_mode)) return;
    snprintf(own ? search->out->token : search->out->final, LUNA_NAME_PART_BYTES, "%s",
             name);
}

luna_err luna_scan_inode(int dir, ino_t inode, const char *anchor, luna_found *out)
{
    inode_search search = {.inode = inode, .anchor = anchor, .out = out};
    *out = (luna_found){0};
    return luna_scan_each(dir, visit_inode, &search);
}

typedef struct presence {
    const char *prefix, *except;
    bool *has;
} presence;

static void visit_has(void *arg, int dir, const char *name)
{
    const presence *p = arg;
    (void)dir;
    if (strcmp(name, p->except) == 0) return;
    if (strncmp(name, p->prefix, strlen(p->prefix)) == 0) *p->has = true;
}

luna_err luna_scan_has(int dir, const char *prefix, const char *except, bool *has)
{
    presence p = {.prefix = prefix, .except = except, .has = has};
    *has = false;
    return luna_scan_each(dir, visit_has, &p);
}

int64_t luna_scan_written_ms(int dir, const char *name)
{
    struct stat info;
    if (fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0) return INT64_MAX;
    return (int64_t)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000;
}

typedef struct removal {
    const char *prefix;
    int64_t before_ms;
} removal;

static void visit_remove(void *arg, int dir, const char *name)
{
    const removal *r = arg;
    if (strncmp(name, r->prefix, strlen(r->prefix)) != 0) return;
    if (r->before_ms == INT64_MAX || luna_scan_written_ms(dir, name) < r->before_ms)
        unlinkat(dir, name, 0);
}

luna_err luna_scan_remove(int dir, const char *prefix, int64_t before_ms)
{
    removal r = {.prefix = prefix, .before_ms = before_ms};
    return luna_scan_each(dir, visit_remove, &r);
}
