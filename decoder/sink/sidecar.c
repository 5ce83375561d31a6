#define _GNU_SOURCE  //  renameat2

#include "decoder/sink/sidecar.h"

#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void luna_sidecar_name(const char *picture, char out[LUNA_NAME_PART_BYTES])
{
    const size_t len = strlen(picture), end = sizeof LUNA_SIDECAR_END;
    const size_t kept =
        len + end <= LUNA_NAME_PART_BYTES ? len : LUNA_NAME_PART_BYTES - end;
    memcpy(out, picture, kept);
    memcpy(out + kept, LUNA_SIDECAR_END, end);
}

static luna_err fill(const luna_sidecar *s, int fd)
{
    LUNA_TRY(luna_access_set(s->access, fd, false, s->folder));
    if (!luna_step(s->fault, "write sidecar") ||
        luna_write_all(fd, s->text, s->len, s->folder) != LUNA_OK)
        return luna_place_error("cannot write a sidecar in", s->folder);
    if (!luna_step(s->fault, "sync sidecar") || fdatasync(fd) != 0)
        return luna_place_error("cannot sync a sidecar in", s->folder);
    return LUNA_OK;
}

static luna_err make_temporary(const luna_sidecar *s, char name[LUNA_NAME_PART_BYTES])
{
    char suffix[LUNA_SUFFIX_BYTES];
    LUNA_TRY(luna_random_suffix("part", suffix));
    //  The prefix ends with the dot that the suffix begins with.
    snprintf(name, LUNA_NAME_PART_BYTES, "%.*s%s",
             LUNA_NAME_PART_BYTES - LUNA_SUFFIX_BYTES, s->prefix, suffix + 1);
    const bool may = luna_step(s->fault, "create sidecar");
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    const int fd = may ? openat(s->dir, name, flags, 0666) : -1;
    if (fd < 0) return luna_place_error("cannot create a sidecar in", s->folder);
    const luna_err err = fill(s, fd);
    close(fd);
    if (err != LUNA_OK) unlinkat(s->dir, name, 0);
    return err;
}

static bool same_bytes(const luna_sidecar *s, int fd)
{
    char block[4096];
    size_t at = 0;
    ssize_t got;
    while ((got = read(fd, block, sizeof block)) > 0) {
        if ((size_t)got > s->len - at || memcmp(s->text + at, block, (size_t)got) != 0)
            return false;
        at += (size_t)got;
    }
    return got == 0 && at == s->len;
}

static void look_at_taken(const luna_sidecar *s, const char *name)
{
    const int fd = openat(s->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    const bool same = fd >= 0 && same_bytes(s, fd);
    if (fd >= 0) close(fd);
    if (!same)
        luna_log(LUNA_LOG_WARNING, "sidecar_left_out",
                 "path=\"%s/%s\" reason=\"a file of this name is there\"", s->folder,
                 name);
}

//  File systems that cannot rename without replacing link, which does not replace either.
static int give_name(const luna_sidecar *s, const char *temporary, const char *name)
{
    if (!luna_step(s->fault, "name sidecar")) return -1;
    if (renameat2(s->dir, temporary, s->dir, name, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return -1;
    if (linkat(s->dir, temporary, s->dir, name, 0) != 0) return -1;
    unlinkat(s->dir, temporary, 0);
    return 0;
}

luna_err luna_sidecar_put(const luna_sidecar *s)
{
    char temporary[LUNA_NAME_PART_BYTES], name[LUNA_NAME_PART_BYTES];
    luna_sidecar_name(s->picture, name);
    LUNA_TRY(make_temporary(s, temporary));
    if (give_name(s, temporary, name) == 0) return LUNA_OK;
    const int code = errno;
    unlinkat(s->dir, temporary, 0);
    if (code == EEXIST) return look_at_taken(s, name), LUNA_OK;
    //  Another attempt, which finished this image, has tidied the temporary away.
    if (code == ENOENT) return LUNA_OK;
    errno = code;
    return luna_place_error("cannot name a sidecar in", s->folder);
}
