//  access.h - who may do what with the files and folders that the sink makes

#ifndef LUNA_SINK_ACCESS_H
#define LUNA_SINK_ACCESS_H

#include "common/err.h"

#include <stdbool.h>
#include <sys/types.h>

//  Zeroed: everything as the system does it for this process.
typedef struct luna_access {
    mode_t file_mode;    //  permission bits; 0: what the umask leaves
    mode_t folder_mode;  //  the same
    bool has_owner, has_group;
    uid_t owner;  //  CAP_CHOWN is needed for another one than the process's
    gid_t group;  //  one of the process's groups, or CAP_CHOWN
} luna_access;

//  Applies it to an open file or folder. `path` is for the error: LUNA_CANT_CREATE.
LUNA_MUST_USE luna_err luna_access_set(const luna_access *access, int fd, bool folder,
                                       const char *path);

#endif
