#include "decoder/sink/place.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

luna_err luna_place_error(const char *what, const char *path)
{
    if (errno == ENOSPC || errno == EDQUOT)
        return luna_error(
            LUNA_NO_SPACE,
            "%s %s: the disk or the quota is full; free space there, the job "
            "goes on at its next attempt",
            what, path);
    if (errno == EFBIG)
        return luna_error(LUNA_NO_SPACE,
                          "%s %s: larger than this process or file system may write "
                          "(ulimit -f)",
                          what, path);
    return luna_error_errno(errno == EIO ? LUNA_IO : LUNA_CANT_CREATE, "%s %s", what,
                            path);
}

//  ---- roots ------------------------------------------------------------------------

static luna_err open_root(const char *path, char **out)
{
    char real[PATH_MAX];
    if (path[0] == '\0') return luna_error(LUNA_CONFIG, "an output root is empty");
    LUNA_TRY(luna_make_dirs(path, 0777));
    //  Who made the root may have died before its name was durable.
    LUNA_TRY(luna_sync_above(path));
    if (!realpath(path, real) || access(real, W_OK | X_OK) != 0)
        return luna_error_errno(LUNA_CANT_CREATE,
                                "the output root %s cannot be written in", path);
    *out = strdup(real);
    return *out ? LUNA_OK : luna_error(LUNA_NO_MEMORY, "no memory for an output root");
}

luna_err luna_roots_open(const char *const *paths, size_t count, luna_roots *out)
{
    *out = (luna_roots){0};
    if (count == 0) return luna_error(LUNA_CONFIG, "no output root is set");
    luna_roots roots = {.path = calloc(count, sizeof *roots.path)};
    luna_err err =
        roots.path ? LUNA_OK : luna_error(LUNA_NO_MEMORY, "no memory for roots");
    for (; err == LUNA_OK && roots.count < count; roots.count++) {
        err = open_root(paths[roots.count], &roots.path[roots.count]);
        if (err != LUNA_OK) break;
    }
    if (err == LUNA_OK)
        *out = roots;
    else
        luna_roots_close(&roots);
    return err;
}

void luna_roots_close(luna_roots *roots)
{
    for (size_t i = 0; i < roots->count; i++) free(roots->path[i]);
    free(roots->path);
    *roots = (luna_roots){0};
}

//  ---- finding ------------------------------------------------------------------------

//  The part of `path` below `root`, NULL when it is not in it.
static const char *below(const char *root, const char *path)
{
    const size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(path, root, len) != 0) return NULL;
    if (path[len] == '\0') return path + len;
    return path[len] == '/' ? path + len + 1 : NULL;
}

static luna_err outside(const luna_roots *roots, const char *path)
{
    char list[512] = "";
    for (size_t i = 0; i < roots->count; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", roots->path[i]);
    }
    return luna_error(LUNA_FORBIDDEN,
                      "the folder %.300s is outside the output roots (%s); choose one "
                      "inside, or add it to the roots in the decoder's settings",
                      path, list);
}

//  Every part of a path: no "..", no control characters.
static luna_err check_parts(const char *path)
{
    for (const char *at = path; *at; at++)
        if ((uint8_t)*at < 0x20 || *at == 0x7F)
            return luna_error(LUNA_BAD_REQUEST,
                              "the output folder's path holds a control character");
    for (const char *at = path; *at;) {
        const size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.')
            return luna_error(LUNA_FORBIDDEN, "the output folder %.300s holds \"..\"",
                              path);
        at += len + (at[len] == '/');
    }
    return LUNA_OK;
}

static luna_err join_request(const luna_roots *roots, luna_text output_dir,
                             const char *folder, char out[PATH_MAX])
{
    char dir[PATH_MAX];
    if (output_dir.len >= sizeof dir)
        return luna_error(LUNA_TOO_LARGE, "the output folder's path has %zu bytes",
                          output_dir.len);
    if (output_dir.len > 0 && memchr(output_dir.data, '\0', output_dir.len))
        return luna_error(LUNA_BAD_REQUEST, "the output folder's path holds a NUL");
    snprintf(dir, sizeof dir, "%.*s", (int)output_dir.len,
             output_dir.len ? output_dir.data : "");
    if (dir[0] == '\0') return luna_path_join(out, PATH_MAX, roots->path[0], folder);
    if (dir[0] != '/')
        return luna_error(LUNA_BAD_REQUEST,
                          "the output folder %.300s is relative; give an absolute path",
                          dir);
    return luna_path_join(out, PATH_MAX, dir, folder);
}

//  Resolves as much of `path` as exists; `rest` points at what does not, or at "".
static luna_err resolve(char *path, char real[PATH_MAX], const char **rest)
{
    size_t end = strlen(path);
    const size_t all = end;
    for (;;) {
        while (end > 1 && path[end - 1] == '/') end--;
        const char cut = path[end];
        path[end] = '\0';
        const bool exists = realpath(path, real) != NULL;
        const int code = errno;
        path[end] = cut;
        *rest = path + (end < all ? end + 1 : end);
        if (exists) return LUNA_OK;
        errno = code;
        if (code == ELOOP)
            return luna_error(LUNA_FORBIDDEN, "the folder %s is a loop of symlinks",
                              path);
        if (code != ENOENT || end <= 1)
            return luna_place_error("cannot use the output folder", path);
        while (end > 1 && path[end - 1] != '/') end--;
    }
}

//  Appends the parts of `rest`, dropping empty ones and ".".
static luna_err append_parts(char real[PATH_MAX], const char *rest)
{
    while (*rest) {
        const size_t len = strcspn(rest, "/");
        const size_t used = strcmp(real, "/") == 0 ? 0 : strlen(real);
        if (len > 0 && !(len == 1 && rest[0] == '.')) {
            if (used + len + 2 > LUNA_SINK_PATH_BYTES - LUNA_NAME_PART_BYTES)
                return luna_error(LUNA_TOO_LARGE, "the path %.100s... is too long", real);
            real[used] = '/';
            memcpy(real + used + 1, rest, len);
            real[used + 1 + len] = '\0';
        }
        rest += len + (rest[len] == '/');
    }
    return LUNA_OK;
}

static bool is_hidden(const char *folder)
{
    const size_t len = strlen(LUNA_PLACE_HIDDEN);
    for (const char *at = folder; at; at = strchr(at, '/')) {
        at += at > folder;
        if (strncmp(at, LUNA_PLACE_HIDDEN, len) != 0) continue;
        if (at[len] == '\0' || at[len] == '/' || at[len] == '-') return true;
    }
    return false;
}

luna_err luna_place_find(const luna_roots *roots, luna_text output_dir,
                         const char *folder, luna_place *out)
{
    char asked[PATH_MAX], real[PATH_MAX];
    const char *rest, *inside = NULL;
    LUNA_TRY(join_request(roots, output_dir, folder, asked));
    LUNA_TRY(check_parts(asked));
    LUNA_TRY(resolve(asked, real, &rest));
    LUNA_TRY(append_parts(real, rest));
    LUNA_TRY(check_parts(real));
    for (size_t i = 0; i < roots->count; i++) {
        const char *part = below(roots->path[i], real);
        if (!part || (inside && part <= inside)) continue;
        inside = part;
        out->root = roots->path[i];
    }
    if (!inside) return outside(roots, real);
    if (is_hidden(inside))
        return luna_error(LUNA_FORBIDDEN, "the folder %s is Luna's own", real);
    snprintf(out->folder, sizeof out->folder, "%s", inside);
    return LUNA_OK;
}

bool luna_place_is_plain(const char *path)
{
    if (path[0] == '\0' || path[0] == '/') return false;
    while (*path) {
        const size_t len = strcspn(path, "/");
        if (len == 0 || (len == 2 && path[0] == '.' && path[1] == '.')) return false;
        path += len + (path[len] == '/');
    }
    return true;
}

//  ---- opening -------------------------------------------------------------------------

const luna_access luna_access_plain = {0};

static luna_err make_part(int parent, const char *part, const char *path,
                          const luna_access *make, int *fd)
{
    const bool made = mkdirat(parent, part, 0777) == 0;
    if (!made && errno != EEXIST) return luna_place_error("cannot make the folder", path);
    if (fsync(parent) != 0)
        return luna_error_errno(LUNA_IO, "cannot sync the folder above %s", path);
    *fd = openat(parent, part, FOLDER_FLAGS | O_NOFOLLOW);
    if (*fd < 0 || !made) return LUNA_OK;
    const luna_err err = luna_access_set(make, *fd, true, path);
    if (err != LUNA_OK) {
        close(*fd);
        unlinkat(parent, part, AT_REMOVEDIR);
    }
    return err;
}

static luna_err open_part(int parent, const char *part, const char *path,
                          const luna_access *make, int *fd)
{
    *fd = openat(parent, part, FOLDER_FLAGS | O_NOFOLLOW);
    if (*fd >= 0) return LUNA_OK;
    if (errno == ENOENT && !make)
        return luna_error(LUNA_NOT_FOUND, "there is no folder %s", path);
    if (errno == ENOENT) {
        LUNA_TRY(make_part(parent, part, path, make, fd));
        if (*fd >= 0) return LUNA_OK;
    }
    struct stat info;
    if (fstatat(parent, part, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode))
        return luna_error(LUNA_FORBIDDEN,
                          "%s was replaced by a symlink, or leads nowhere", path);
    return luna_place_error("cannot open the folder", path);
}

luna_err luna_place_open(const luna_place *place, const luna_access *make, int *fd)
{
    char path[LUNA_SINK_PATH_BYTES];
    int parent = open(place->root, FOLDER_FLAGS);
    if (parent < 0)
        return luna_error_errno(
            LUNA_IO, "the output root %s is gone; is its disk mounted?", place->root);
    luna_err err = luna_path_join(path, sizeof path, place->root, place->folder);
    if (err != LUNA_OK) {
        close(parent);
        return err;
    }
    for (char *at = path + strlen(path) - strlen(place->folder); *at;) {
        const size_t len = strcspn(at, "/");
        const bool more = at[len] == '/';
        int next = -1;
        at[len] = '\0';
        err = open_part(parent, at, path, make, &next);
        close(parent);
        if (err != LUNA_OK) return err;
        parent = next;
        if (more) at[len] = '/';
        at += len + more;
    }
    *fd = parent;
    return LUNA_OK;
}
