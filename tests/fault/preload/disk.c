#define _GNU_SOURCE

#include "tests/fault/preload/disk.h"

#include "tests/fault/preload/real.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#define PATH_BYTES 4096

static disk *all;
static char state_dir[PATH_BYTES];
static bool journalled;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

disk *disk_all(void)
{
    return all;
}

const char *disk_state(void)
{
    return state_dir;
}

void disk_lock(void)
{
    pthread_mutex_lock(&mutex);
    if (all) atomic_store(&all->busy, 1);
}

void disk_unlock(void)
{
    if (all) atomic_store(&all->busy, 0);
    pthread_mutex_unlock(&mutex);
}

_Noreturn void disk_give_up(const char *why, const char *what)
{
    fprintf(stderr, "faultfs: %s: %s\n", what, why);
    _exit(99);
}

static void set_name(char out[DISK_NAME_BYTES], const char *name)
{
    if (snprintf(out, DISK_NAME_BYTES, "%s", name) >= DISK_NAME_BYTES)
        disk_give_up("the name is too long", name);
}

//  ---- nodes -----------------------------------------------------------------------

static bool look(int dir, const char *path, int flags, struct statx *out)
{
    const unsigned mask = STATX_BASIC_STATS | STATX_BTIME;
    const int code = errno;
    const bool found = statx(dir, path, flags | AT_NO_AUTOMOUNT, mask, out) == 0;
    errno = code;
    return found && all && out->stx_dev_major == all->device_major &&
           out->stx_dev_minor == all->device_minor;
}

static int64_t born_ns(const struct statx *seen)
{
    if (!(seen->stx_mask & STATX_BTIME)) return 0;
    return seen->stx_btime.tv_sec * 1000000000 + seen->stx_btime.tv_nsec;
}

static uint32_t find(const struct statx *seen)
{
    for (uint32_t i = all->node_count; i-- > 1;)
        if (all->nodes[i].inode == seen->stx_ino &&
            all->nodes[i].born_ns == born_ns(seen))
            return i;
    return 0;
}

static uint32_t add(const struct statx *seen)
{
    if (all->node_count == DISK_NODES) disk_give_up("too many files", state_dir);
    const uint32_t number = all->node_count++;
    all->nodes[number] = (disk_node){.inode = seen->stx_ino,
                                     .born_ns = born_ns(seen),
                                     .mode = seen->stx_mode,
                                     .folder = S_ISDIR(seen->stx_mode)};
    return number;
}

void disk_label(uint32_t folder, const char *name, char out[DISK_NAME_BYTES])
{
    const char *path = all->nodes[folder].name, *slash = strrchr(path, '/');
    const char *above = slash ? slash + 1 : path;
    const int room = DISK_NAME_BYTES / 2 - 1;
    snprintf(out, DISK_NAME_BYTES, "%.*s%s%.*s", room, above, *above ? "/" : "", room,
             name);
}

static void name_node(uint32_t node, uint32_t folder, const char *name)
{
    disk_label(folder, name, all->nodes[node].name);
}

const char *disk_name(uint32_t node)
{
    return all->nodes[node].name;
}

//  ---- durable bytes -----------------------------------------------------------------

void disk_content_path(uint32_t node, char *out, size_t room)
{
    snprintf(out, room, "%s/%u", state_dir, node);
}

static bool copy_open(int from, int to)
{
    static char buffer[1 << 16];  //  under the lock
    for (off_t at = 0;;) {
        const ssize_t n = real_pread(from, buffer, sizeof buffer, at);
        if (n == 0) return true;
        if (n < 0 || real_pwrite(to, buffer, (size_t)n, at) != n) return false;
        at += n;
    }
}

bool disk_copy(const char *from, const char *to)
{
    const int in = real_open(AT_FDCWD, from, O_RDONLY | O_CLOEXEC, 0);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    const int out = in >= 0 ? real_open(AT_FDCWD, to, flags, 0600) : -1;
    const bool copied = out >= 0 && copy_open(in, out);
    if (in >= 0) real_close(in);
    if (out >= 0) real_close(out);
    return copied;
}

static void keep_content(uint32_t node, const char *path)
{
    char to[PATH_BYTES + 32];
    disk_content_path(node, to, sizeof to);
    if (!disk_copy(path, to)) disk_give_up(strerror(errno), path);
    all->nodes[node].content = true;
}

//  ---- durable names
//  ---------------------------------------------------------------------

static void forget_entries(uint32_t folder)
{
    for (uint32_t i = 0; i < all->entry_count; i++)
        if (all->entries[i].folder == folder) all->entries[i].folder = 0;
}

static void add_entry(uint32_t folder, const char *name, uint32_t node)
{
    uint32_t i = 0;
    while (i < all->entry_count && all->entries[i].folder) i++;
    if (i == DISK_ENTRIES) disk_give_up("too many names", state_dir);
    if (i == all->entry_count) all->entry_count++;
    all->entries[i].node = node;
    set_name(all->entries[i].name, name);
    all->entries[i].folder = folder;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void take_stock(uint32_t folder, const char *path);

//  What this library did not see come is taken as durable.
static uint32_t adopt(uint32_t folder, const char *path, const char *name,
                      const struct statx *seen)
{
    const uint32_t node = add(seen);
    name_node(node, folder, name);
    if (all->nodes[node].folder)
        take_stock(node, path);
    else
        keep_content(node, path);
    return node;
}

//  The folder's entries as they are now become the durable ones.
static void take_stock(uint32_t folder, const char *path)
{
    char below[PATH_BYTES + DISK_NAME_BYTES];
    struct statx seen;
    DIR *dir = opendir(path);
    if (!dir) disk_give_up(strerror(errno), path);
    forget_entries(folder);
    for (struct dirent *entry; (entry = readdir(dir));) {
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (is_dots(entry->d_name) || !look(AT_FDCWD, below, AT_SYMLINK_NOFOLLOW, &seen))
            continue;
        if (!S_ISDIR(seen.stx_mode) && !S_ISREG(seen.stx_mode)) continue;
        uint32_t node = find(&seen);
        if (!node) node = adopt(folder, below, entry->d_name, &seen);
        add_entry(folder, entry->d_name, node);
    }
    closedir(dir);
}

//  ---- changes of names
//  -----------------------------------------------------------------

static disk_change *add_change(void)
{
    if (all->change_count == DISK_CHANGES)
        disk_give_up("too many unsynced names", state_dir);
    disk_change *change = &all->changes[all->change_count++];
    *change = (disk_change){.node = 0};
    return change;
}

static void drop_done_changes(void)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < all->change_count; i++)
        if (all->changes[i].set_folder || all->changes[i].del_folder)
            all->changes[kept++] = all->changes[i];
    all->change_count = kept;
}

static void settle_changes(uint32_t folder)
{
    for (uint32_t i = 0; i < all->change_count; i++) {
        disk_change *change = &all->changes[i];
        if (change->set_folder == folder) change->set_folder = 0;
        if (change->del_folder == folder) change->del_folder = 0;
    }
    drop_done_changes();
}

static void remove_entry(uint32_t folder, const char *name)
{
    for (uint32_t i = 0; i < all->entry_count; i++)
        if (all->entries[i].folder == folder && strcmp(all->entries[i].name, name) == 0)
            all->entries[i].folder = 0;
}

//  A commit of the journal: all changes so far, in order.
static void commit(void)
{
    for (uint32_t i = 0; i < all->change_count; i++) {
        const disk_change *change = &all->changes[i];
        if (change->del_folder) remove_entry(change->del_folder, change->del_name);
        if (!change->set_folder) continue;
        remove_entry(change->set_folder, change->set_name);
        add_entry(change->set_folder, change->set_name, change->node);
    }
    all->change_count = 0;
}

//  ---- finding -----------------------------------------------------------------------

static uint32_t find_locked(const struct statx *seen)
{
    disk_lock();
    const uint32_t node = find(seen);
    disk_unlock();
    return node;
}

uint32_t disk_of_fd(int fd)
{
    struct statx seen;
    if (!all || !look(fd, "", AT_EMPTY_PATH, &seen)) return 0;
    if (!S_ISREG(seen.stx_mode) && !S_ISDIR(seen.stx_mode)) return 0;
    return find_locked(&seen);
}

uint32_t disk_of_path(int dir, const char *path)
{
    struct statx seen;
    if (!all || !look(dir, path, AT_SYMLINK_NOFOLLOW, &seen)) return 0;
    return find_locked(&seen);
}

static uint32_t folder_of(int dir, const char *path)
{
    struct statx seen;
    if (!all || !look(dir, path, 0, &seen) || !S_ISDIR(seen.stx_mode)) return 0;
    return find_locked(&seen);
}

disk_place disk_place_of(int dir, const char *path)
{
    char above[PATH_BYTES];
    disk_place place = {0, path};
    const char *slash = strrchr(path, '/');
    if (!all || strlen(path) >= sizeof above) return place;
    if (slash) place.name = slash + 1;
    if (place.name[0] == '\0' || is_dots(place.name)) return place;
    const size_t len = slash ? (size_t)(slash - path) : 0;
    memcpy(above, path, len);
    above[len] = '\0';
    place.folder = folder_of(dir, len ? above : slash ? "/" : ".");
    return place;
}

//  ---- what was done ------------------------------------------------------------------

void disk_made(const disk_place *at, int dir, const char *path)
{
    struct statx seen;
    if (!look(dir, path, AT_SYMLINK_NOFOLLOW, &seen)) return;
    uint32_t node = find(&seen);
    if (!node) node = add(&seen);
    name_node(node, at->folder, at->name);
    disk_change *change = add_change();
    change->node = node;
    change->set_folder = at->folder;
    set_name(change->set_name, at->name);
}

void disk_removed(const disk_place *at)
{
    disk_change *change = add_change();
    change->del_folder = at->folder;
    set_name(change->del_name, at->name);
}

void disk_renamed(const disk_place *from, const disk_place *to, int dir, const char *path)
{
    if (from->folder && !to->folder) disk_removed(from);
    if (!to->folder) return;
    disk_made(to, dir, path);
    if (!from->folder) return;
    disk_change *change = &all->changes[all->change_count - 1];
    change->del_folder = from->folder;
    set_name(change->del_name, from->name);
}

void disk_synced(int fd, uint32_t node)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (all->nodes[node].folder) {
        take_stock(node, path);
        settle_changes(node);
    } else {
        keep_content(node, path);
    }
    if (journalled) commit();
}

//  ---- the state ---------------------------------------------------------------------

static bool map_state(void)
{
    char path[PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/disk", state_dir);
    const int fd = real_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || real_truncate(fd, sizeof *all) != 0) return false;
    void *data = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real_close(fd);
    if (data == MAP_FAILED) return false;
    all = data;
    return true;
}

static void begin(const char *root)
{
    struct statx seen;
    if (statx(AT_FDCWD, root, 0, STATX_BASIC_STATS | STATX_BTIME, &seen) != 0)
        disk_give_up(strerror(errno), root);
    all->device_major = seen.stx_dev_major;
    all->device_minor = seen.stx_dev_minor;
    all->node_count = 1;
    const uint32_t node = add(&seen);
    take_stock(node, root);
    all->root = node;
}

bool disk_open(const char *state, const char *root, bool journal)
{
    snprintf(state_dir, sizeof state_dir, "%s", state);
    journalled = journal;
    if ((real_mkdir(AT_FDCWD, state, 0700) != 0 && errno != EEXIST) || !map_state()) {
        fprintf(stderr, "faultfs: cannot keep its state in %s: %s\n", state,
                strerror(errno));
        return false;
    }
    if (!all->root) begin(root);
    atomic_store(&all->busy, 0);  //  a planned kill leaves it
    return true;
}

void disk_close(void)
{
    munmap(all, sizeof *all);
    all = NULL;
}
