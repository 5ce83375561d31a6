#include "decoder/sink/access.h"

#include <sys/stat.h>
#include <unistd.h>

luna_err luna_access_set(const luna_access *access, int fd, bool folder, const char *path)
{
    const mode_t mode = folder ? access->folder_mode : access->file_mode;
    const uid_t owner = access->has_owner ? access->owner : (uid_t)-1;
    const gid_t group = access->has_group ? access->group : (gid_t)-1;
    if ((access->has_owner || access->has_group) && fchown(fd, owner, group) != 0)
        return luna_error_errno(LUNA_CANT_CREATE,
                                "cannot give what is made in %s to the user and group of "
                                "[output]; run the decoder as root, or change them",
                                path);
    //  Behind fchown, which takes set-id bits away.
    if (mode != 0 && fchmod(fd, mode) != 0)
        return luna_error_errno(LUNA_CANT_CREATE, "cannot set the mode of a file in %s",
                                path);
    return LUNA_OK;
}
