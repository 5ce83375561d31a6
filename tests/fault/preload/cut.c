//  cut.c - the power goes, and comes back
//
//  Rebuilds the root as a disk might hold it: the durable names with the durable bytes,
//  and of what was not synced nothing (seed 0) or a part that the seed chooses:
//
//    names: of each folder the changes up to a moment of its own; with an odd seed one
//    moment for all, as a journal has it. A rename never loses a file: the old name goes
//    only where the new one came.
//    bytes: of each file each block of 512, and the length, old or new.

#define _GNU_SOURCE

#include "tests/fault/preload/cut.h"

#include "tests/fault/preload/disk.h"
#include "tests/fault/preload/real.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 512, BLOCK_BYTES = 512 };

static struct {
    uint64_t random;
    bool lose_all;
    const char *root;
    char now[DISK_NODES][PATH_BYTES];  //  where a node's present bytes are
    char built[DISK_NODES][PATH_BYTES];
    uint32_t pending[DISK_NODES];  //  changes of a folder that still count
} cut;

//  splitmix64
static uint64_t next_random(void)
{
    uint64_t z = cut.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t pick(uint32_t most)
{
    return (uint32_t)(next_random() % (most + 1u));
}

//  ---- names ---------------------------------------------------------------------------

static void remove_name(uint32_t folder, const char *name)
{
    disk *d = disk_all();
    for (uint32_t i = 0; i < d->entry_count; i++)
        if (d->entries[i].folder == folder && strcmp(d->entries[i].name, name) == 0)
            d->entries[i].folder = 0;
}

static void set_name(uint32_t folder, const char *name, uint32_t node)
{
    disk *d = disk_all();
    remove_name(folder, name);
    if (d->entry_count == DISK_ENTRIES) disk_give_up("too many names", name);
    disk_entry *entry = &d->entries[d->entry_count++];
    *entry = (disk_entry){.folder = folder, .node = node};
    memcpy(entry->name, name, sizeof entry->name);
}

static bool take_part(uint32_t folder)
{
    if (cut.pending[folder] == 0) return false;
    cut.pending[folder]--;
    return true;
}

static void apply(const disk_change *change)
{
    const bool moved = change->set_folder && change->del_folder;
    const bool one_folder = moved && change->set_folder == change->del_folder;
    bool set = false;
    if (change->set_folder) set = take_part(change->set_folder);
    if (set) set_name(change->set_folder, change->set_name, change->node);
    if (!change->del_folder) return;
    const bool del = one_folder ? set : take_part(change->del_folder);
    if (del && (set || !moved))
        remove_name(change->del_folder, change->del_name);
    else
        cut.pending[change->del_folder] = 0;
}

static void choose_names(void)
{
    disk *d = disk_all();
    const bool one_moment = cut.random & 1;
    const uint32_t moment = pick(d->change_count);
    for (uint32_t i = 0; i < d->node_count; i++)
        cut.pending[i] = one_moment ? UINT32_MAX : pick(d->change_count);
    for (uint32_t i = 0; i < (one_moment ? moment : d->change_count); i++)
        apply(&d->changes[i]);
}

//  ---- bytes
//  -----------------------------------------------------------------------------

static int open_side(const char *path, off_t *len)
{
    struct stat seen;
    const int fd = path[0] ? real_open(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    *len = fd >= 0 && fstat(fd, &seen) == 0 ? seen.st_size : 0;
    return fd;
}

static void read_block(int fd, uint8_t block[BLOCK_BYTES], off_t at)
{
    memset(block, 0, BLOCK_BYTES);
    if (fd >= 0 && real_pread(fd, block, BLOCK_BYTES, at) < 0) disk_give_up("read", "");
}

//  Old bytes, and where the seed says so new ones; beyond the old length zeroes are what
//  a disk has that allocated the blocks and did not write them.
static void mix(int old, int new, int out, off_t len)
{
    uint8_t block[BLOCK_BYTES];
    for (off_t at = 0; at < len; at += BLOCK_BYTES) {
        const bool fresh = !cut.lose_all && new >= 0 && next_random() & 1;
        const off_t left = len - at;
        const size_t n = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
        read_block(fresh ? new : old, block, at);
        if (real_pwrite(out, block, n, at) != (ssize_t)n)
            disk_give_up(strerror(errno), "a block");
    }
}

static void build_file(uint32_t node, const char *path)
{
    char durable[4096 + 32] = "";
    off_t old_len, new_len;
    if (disk_all()->nodes[node].content) disk_content_path(node, durable, sizeof durable);
    const int old = open_side(durable, &old_len);
    const int new = open_side(cut.lose_all ? "" : cut.now[node], &new_len);
    const int out = real_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                              disk_all()->nodes[node].mode & 07777);
    if (out < 0) disk_give_up(strerror(errno), path);
    const bool resized = new >= 0 && next_random() & 1;
    mix(old, new, out, resized ? new_len : old_len);
    real_close(out);
    if (old >= 0) real_close(old);
    if (new >= 0) real_close(new);
}

//  ---- the tree
//  --------------------------------------------------------------------------

static void build_folder(uint32_t folder, const char *path);

static void build(uint32_t node, const char *path)
{
    if (disk_all()->nodes[node].folder) {
        build_folder(node, path);
    } else if (cut.built[node][0]) {
        if (real_link(AT_FDCWD, cut.built[node], AT_FDCWD, path, 0) != 0)
            disk_give_up(strerror(errno), path);
    } else {
        build_file(node, path);
        snprintf(cut.built[node], sizeof cut.built[node], "%s", path);
    }
}

static void build_folder(uint32_t folder, const char *path)
{
    char below[PATH_BYTES];
    const disk *d = disk_all();
    if (real_mkdir(AT_FDCWD, path, d->nodes[folder].mode & 07777) != 0)
        disk_give_up(strerror(errno), path);
    for (uint32_t i = 0; i < d->entry_count; i++) {
        if (d->entries[i].folder != folder) continue;
        const int n = snprintf(below, sizeof below, "%s/%s", path, d->entries[i].name);
        if (n >= PATH_BYTES) disk_give_up("the path is too long", below);
        build(d->entries[i].node, below);
    }
}

static int note_present(const char *path, const struct stat *seen, int type,
                        struct FTW *where)
{
    (void)seen;
    (void)where;
    const uint32_t node = type == FTW_F ? disk_of_path(AT_FDCWD, path) : 0;
    if (node) snprintf(cut.now[node], sizeof cut.now[node], "%s", path);
    return 0;
}

static int remove_one(const char *path, const struct stat *seen, int type,
                      struct FTW *where)
{
    (void)seen;
    (void)where;
    return real_unlink(AT_FDCWD, path, type == FTW_DP ? AT_REMOVEDIR : 0);
}

static int remove_tree(const char *path)
{
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int faultfs_cut(const char *state, const char *root, uint64_t seed)
{
    char fresh[PATH_BYTES];
    memset(&cut, 0, sizeof cut);
    cut.random = seed;
    cut.lose_all = seed == 0;
    cut.root = root;
    if (!disk_open(state, root, false)) return -1;
    nftw(root, note_present, 16, FTW_PHYS);
    if (!cut.lose_all) choose_names();
    snprintf(fresh, sizeof fresh, "%.500s.new", root);
    build_folder(disk_all()->root, fresh);
    disk_close();
    if (remove_tree(root) != 0 || remove_tree(state) != 0) return -1;
    return real_rename(AT_FDCWD, fresh, AT_FDCWD, root, 0);
}
