//  power.h - what a loss of power takes
//
//  A record, in memory that outlives the process under test, of every change that no
//  sync has made durable: how the bytes, the size or the name was before. A loss undoes
//  all of them, or some: a disk may have written what it was not asked for. Bytes that
//  were to be synced when a sync failed are lost, whatever syncs follow, until they are
//  written again: the kernel takes them for written, and they can still be read.
//
//  Folders themselves count as durable when made. A rename is durable when the folder
//  of the new name is synced.

#ifndef LUNA_TESTS_STORE_POWER_H
#define LUNA_TESTS_STORE_POWER_H

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kit.h"

#define POWER_CHANGES 20000
#define POWER_BYTES   ((size_t)96 << 20)
#define POWER_GRAVES  "graves"

typedef enum power_kind {
    POWER_WRITTEN,   //  bytes [at, at + len) were others
    POWER_CUT,       //  bytes [at, at + len) were there
    POWER_SIZED,     //  the file had `at` bytes
    POWER_CREATED,   //  `to` was not there
    POWER_RENAMED,   //  `to` was `from`
    POWER_UNLINKED,  //  `to` was there; it lies in `from`
} power_kind;

typedef struct power_change {
    power_kind kind;
    bool durable;
    bool dropped;  //  bytes of a sync that failed
    ino_t file;    //  or the folder of a name
    off_t at;
    size_t len;
    size_t bytes;  //  offset of the old bytes
    char from[128];
    char to[128];
} power_change;

typedef struct power_record {
    pthread_mutex_t mutex;
    size_t count;
    size_t used;  //  bytes
    power_change change[POWER_CHANGES];
    uint8_t bytes[POWER_BYTES];
} power_record;

static power_record *power;
static bool power_recording;  //  set while no thread is at work

//  A process that was killed may have held it.
static inline void power_init_mutex(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&power->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

//  Everything there is counts as durable from here on.
static inline void power_reset(void)
{
    if (!power) return;
    kit_empty(POWER_GRAVES);
    power->count = power->used = 0;
    power_init_mutex();
}

//  Once at the start of main; the pages of the record come when they are needed.
static inline void power_start(void)
{
    const int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
    power = mmap(NULL, sizeof *power, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (power == MAP_FAILED) abort();
    power_init_mutex();
}

//  ---- changes ---------------------------------------------------------------------

static inline power_change *power_add(power_kind kind, ino_t file)
{
    if (power->count == POWER_CHANGES) abort();
    power_change *change = &power->change[power->count++];
    *change = (power_change){.kind = kind, .file = file};
    return change;
}

//  Before bytes [at, at + len) of the file change. The mutex is held.
static inline void power_keep_bytes(int fd, const struct stat *info, off_t at, size_t len,
                                    power_kind kind)
{
    if (at >= info->st_size) return;
    if (at + (off_t)len > info->st_size) len = (size_t)(info->st_size - at);
    if (power->used + len > POWER_BYTES) abort();
    if (pread(fd, power->bytes + power->used, len, at) != (ssize_t)len) {
        //  SQLite's descriptors can be read, the spool's cannot: theirs only grow.
        memset(power->bytes + power->used, 0, len);
    }
    power_change *change = power_add(kind, info->st_ino);
    change->at = at;
    change->len = len;
    change->bytes = power->used;
    power->used += len;
}

static inline void power_keep_size(const struct stat *info)
{
    power_add(POWER_SIZED, info->st_ino)->at = info->st_size;
}

static inline void power_will_write(int fd, off_t at, size_t len)
{
    struct stat info;
    if (!power_recording || fstat(fd, &info) != 0) return;
    pthread_mutex_lock(&power->mutex);
    if (at + (off_t)len > info.st_size) power_keep_size(&info);
    power_keep_bytes(fd, &info, at, len, POWER_WRITTEN);
    pthread_mutex_unlock(&power->mutex);
}

static inline void power_will_size(int fd, off_t size)
{
    struct stat info;
    if (!power_recording || fstat(fd, &info) != 0) return;
    pthread_mutex_lock(&power->mutex);
    if (size < info.st_size)
        power_keep_bytes(fd, &info, size, (size_t)(info.st_size - size), POWER_CUT);
    power_keep_size(&info);
    pthread_mutex_unlock(&power->mutex);
}

static inline ino_t power_folder_of(const char *path)
{
    char folder[4096];
    struct stat info;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = '\0';
    if (stat(slash ? folder : ".", &info) != 0) return 0;
    return info.st_ino;
}

static inline void power_name(power_kind kind, const char *from, const char *to)
{
    if (!power_recording) return;
    pthread_mutex_lock(&power->mutex);
    power_change *change = power_add(kind, power_folder_of(to));
    snprintf(change->from, sizeof change->from, "%s", from);
    snprintf(change->to, sizeof change->to, "%s", to);
    pthread_mutex_unlock(&power->mutex);
}

static inline void power_created(const char *path)
{
    power_name(POWER_CREATED, "", path);
}

static inline void power_renamed(const char *from, const char *to)
{
    power_name(POWER_RENAMED, from, to);
}

//  The file lives on under another name until the record is cleared.
static inline void power_will_unlink(const char *path)
{
    char grave[128];
    if (!power_recording) return;
    mkdir(POWER_GRAVES, 0700);
    snprintf(grave, sizeof grave, POWER_GRAVES "/%zu", power->count);
    if (link(path, grave) == 0) power_name(POWER_UNLINKED, grave, path);
}

//  ---- syncs -----------------------------------------------------------------------

//  What was dropped in this range has been written again.
static inline void power_mended(size_t number)
{
    const power_change *again = &power->change[number];
    for (size_t i = 0; i < number; i++) {
        power_change *change = &power->change[i];
        if (change->dropped && change->file == again->file && change->at >= again->at &&
            change->at + (off_t)change->len <= again->at + (off_t)again->len)
            change->dropped = false;
    }
}

static inline void power_settle(size_t number, bool succeeded)
{
    power_change *change = &power->change[number];
    const bool first = !change->durable && !change->dropped;
    if (succeeded) {
        change->durable = true;
        if (first && change->kind == POWER_WRITTEN) power_mended(number);
    } else if (first && change->kind == POWER_WRITTEN) {
        change->dropped = true;
    }
}

static inline void power_synced(int fd, bool succeeded)
{
    struct stat info;
    if (!power_recording || fstat(fd, &info) != 0) return;
    pthread_mutex_lock(&power->mutex);
    for (size_t i = 0; i < power->count; i++) {
        power_change *change = &power->change[i];
        const bool name = change->kind >= POWER_CREATED;
        if (change->file == info.st_ino && name == S_ISDIR(info.st_mode))
            power_settle(i, succeeded);
    }
    pthread_mutex_unlock(&power->mutex);
}

//  ---- the loss ----------------------------------------------------------------------

typedef enum power_loss {
    POWER_KEPT,  //  none
    POWER_ALL,   //  everything that was not synced
    POWER_BYTES_ONLY,
    POWER_NAMES_ONLY,
    POWER_EVEN,  //  every second change
    POWER_ODD,
    POWER_LOSSES
} power_loss;

static inline bool power_takes(power_loss loss, const power_change *change, size_t number)
{
    const bool name = change->kind >= POWER_CREATED;
    if (change->durable && !change->dropped) return false;
    switch (loss) {
        case POWER_ALL:
            return true;
        case POWER_BYTES_ONLY:
            return !name;
        case POWER_NAMES_ONLY:
            return name;
        case POWER_EVEN:
        case POWER_ODD:
            return number % 2 == (loss == POWER_ODD);
        default:
            return false;
    }
}

//  Opens the file of this inode in one of the store's folders; -1 when it is gone.
static inline int power_open(ino_t file)
{
    static const char *const folders[] = {"state", "spool/tmp", "spool/ready",
                                          POWER_GRAVES, "spool/quarantine"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[512] = "";
        DIR *dir = opendir(folders[i]);
        if (!dir) continue;
        for (struct dirent *entry; !*path && (entry = readdir(dir));)
            if (entry->d_ino == file)
                snprintf(path, sizeof path, "%s/%s", folders[i], entry->d_name);
        closedir(dir);
        if (*path) return open(path, O_RDWR | O_CLOEXEC);
    }
    return -1;
}

static inline void power_undo_bytes(const power_change *change)
{
    const int fd = power_open(change->file);
    if (fd < 0) return;
    if (change->kind == POWER_SIZED) {
        if (ftruncate(fd, change->at) != 0) abort();
    } else {
        const uint8_t *old = power->bytes + change->bytes;
        if (pwrite(fd, old, change->len, change->at) != (ssize_t)change->len) abort();
    }
    close(fd);
}

static inline void power_undo(const power_change *change)
{
    switch (change->kind) {
        case POWER_WRITTEN:
        case POWER_CUT:
        case POWER_SIZED:
            power_undo_bytes(change);
            break;
        case POWER_CREATED:
            unlink(change->to);
            break;
        case POWER_RENAMED:
        case POWER_UNLINKED: {
            const bool back = change->kind == POWER_RENAMED;
            (void)rename(back ? change->to : change->from,
                         back ? change->from : change->to);
            break;
        }
    }
}

//  With no process at work on the files. When the power stays on, what was not durable
//  is still not.
static inline void power_lose(power_loss loss)
{
    power_recording = false;
    if (!power) return;
    power_init_mutex();
    if (loss == POWER_KEPT) return;
    for (size_t i = power->count; i-- > 0;)
        if (power_takes(loss, &power->change[i], i)) power_undo(&power->change[i]);
    power_reset();
}

#endif
