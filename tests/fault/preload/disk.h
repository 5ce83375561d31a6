//  disk.h - what would still be there after a power cut
//
//  The files below the root are what a running machine shows; this keeps, beside them,
//  what of it a disk is bound to hold. Each file and folder is a node, known by its inode
//  number and time of birth; of a file the bytes as of its last sync are kept, of a
//  folder its entries as of its last sync, and every change of a name since then in
//  order.
//
//      fsync, fdatasync of a file     its bytes and its length, not its name
//      the same of a folder           its names
//      with FAULTFS_JOURNAL=1         any sync makes all names so far durable, as a
//                                     journalling file system's commit does
//      everything else                nothing
//
//  A real sync is left out: the machine stays on. What is there when the world begins,
//  and what comes in without this library, counts as durable. Not tracked: bytes written
//  through mmap (SQLite's -shm), access rights, times.
//
//  All of it is in FAULTFS_STATE/, mapped and shared, so that it outlives the process: a
//  killed program's unsynced names are still unsynced when it has been started again.
//  One process at a time may use a state.
//
//  Thread-safe between disk_lock and disk_unlock. Who kills the process from outside must
//  stop it first and see that the first word of FAULTFS_STATE/disk is 0 (faultfs.py). A table that overflows ends the
//  process: enlarge it here.

#ifndef LUNA_TESTS_FAULT_DISK_H
#define LUNA_TESTS_FAULT_DISK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum {
    DISK_NODES = 8192,
    DISK_ENTRIES = 8192,
    DISK_CHANGES = 8192,
    DISK_NAME_BYTES = 256
};

typedef struct disk_node {
    uint64_t inode;
    int64_t born_ns;
    uint32_t mode;
    bool folder;
    bool content;                //  STATE/<number> holds its durable bytes
    char name[DISK_NAME_BYTES];  //  folder/name when last seen, for the log
} disk_node;

//  One durable name.
typedef struct disk_entry {
    uint32_t folder;  //  node numbers; 0: the entry is free
    uint32_t node;
    char name[DISK_NAME_BYTES];
} disk_entry;

//  One change of names that is not durable in full: a name set, a name removed, or, by a
//  rename, both. A folder that is synced has its part of it done (the number is 0 then).
typedef struct disk_change {
    uint32_t set_folder;
    uint32_t del_folder;
    uint32_t node;
    char set_name[DISK_NAME_BYTES];
    char del_name[DISK_NAME_BYTES];
} disk_change;

typedef struct disk {
    atomic_uint busy;  //  a step is under way: a kill from outside would tear the record
    uint32_t device_major, device_minor;
    uint32_t root;
    uint32_t node_count;  //  node 0 is never used
    uint32_t entry_count;
    uint32_t change_count;
    disk_node nodes[DISK_NODES];
    disk_entry entries[DISK_ENTRIES];
    disk_change changes[DISK_CHANGES];
} disk;

//  Where a name is to be: a tracked folder, and the last part of the path.
typedef struct disk_place {
    uint32_t folder;  //  0: not below the root
    const char *name;
} disk_place;

//  Maps the state, and takes stock of the root when it is new. False, with the reason on
//  stderr, when it cannot.
bool disk_open(const char *state, const char *root, bool journal);
void disk_close(void);
disk *disk_all(void);
const char *disk_state(void);

void disk_lock(void);
void disk_unlock(void);

//  The node of what `fd` is open on, of what `path` names, or of a folder's path: 0 when
//  it is not below the root. No lock is needed to find 0 for sockets and the like.
uint32_t disk_of_fd(int fd);
uint32_t disk_of_path(int dir, const char *path);
disk_place disk_place_of(int dir, const char *path);
const char *disk_name(uint32_t node);
//  folder/name, as the log has it.
void disk_label(uint32_t folder, const char *name, char out[DISK_NAME_BYTES]);

//  What has been done, after it was.
void disk_made(const disk_place *at, int dir, const char *path);
void disk_removed(const disk_place *at);
void disk_renamed(const disk_place *from, const disk_place *to, int dir,
                  const char *path);
void disk_synced(int fd, uint32_t node);

//  Plumbing that cut.c shares: a file's durable bytes, and copying.
void disk_content_path(uint32_t node, char *out, size_t room);
bool disk_copy(const char *from, const char *to);
_Noreturn void disk_give_up(const char *why, const char *what);

#endif
