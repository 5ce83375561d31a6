#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static luna_err open_to_read(const char *path, int *fd, size_t *len)
{
    //  A pipe would keep the opener waiting for its other end.
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return luna_error_errno(errno == ENOENT ? LUNA_NOT_FOUND : LUNA_IO,
                                "cannot read %s", path);
    struct stat info;
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *len = (size_t)info.st_size;
        return LUNA_OK;
    }
    close(*fd);
    return luna_error(LUNA_IO, "%s is not a regular file", path);
}

luna_err luna_map_open(const char *path, luna_map *out)
{
    int fd;
    size_t len;
    LUNA_TRY(open_to_read(path, &fd, &len));
    void *data = len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    close(fd);
    if (data == MAP_FAILED) return luna_error_errno(LUNA_IO, "cannot map %s", path);
    *out = (luna_map){.data = data, .len = len};
    return LUNA_OK;
}

void luna_map_close(luna_map *map)
{
    if (map->data) munmap((void *)(uintptr_t)map->data, map->len);
    *map = (luna_map){0};
}

//  Reads until `len` bytes or the end of file; returns the count, -1 on error.
static ssize_t read_all(int fd, char *data, size_t len)
{
    size_t done = 0;
    while (done < len) {
        const ssize_t n = read(fd, data + done, len - done);
        if (n == 0) break;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

luna_err luna_file_read(const char *path, size_t max_bytes, char **out, size_t *out_len)
{
    int fd;
    size_t len;
    LUNA_TRY(open_to_read(path, &fd, &len));
    if (len > max_bytes) {
        close(fd);
        return luna_error(LUNA_TOO_LARGE, "%s has %zu bytes; at most %zu are taken", path,
                          len, max_bytes);
    }
    char *data = malloc(len + 1);
    const ssize_t got = data ? read_all(fd, data, len) : -1;
    const int code = errno;
    close(fd);
    if (got < 0) {
        free(data);
        errno = code;
        return luna_error_errno(LUNA_IO, "cannot read %s", path);
    }
    data[got] = '\0';
    *out = data;
    *out_len = (size_t)got;
    return LUNA_OK;
}

luna_err luna_write_all(int fd, const void *data, size_t len, const char *path)
{
    const char *at = data;
    while (len > 0) {
        const ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return luna_error_errno(LUNA_IO, "cannot write %s", path);
        at += n;
        len -= (size_t)n;
    }
    return LUNA_OK;
}

luna_err luna_sync_above(const char *path)
{
    char above[4096];
    LUNA_TRY(luna_path_join(above, sizeof above, path, ".."));
    return access(above, R_OK) == 0 ? luna_sync_dir(above) : LUNA_OK;
}

static luna_err make_one(const char *path, mode_t mode)
{
    struct stat info;
    if (mkdir(path, mode) == 0) return luna_sync_above(path);
    const int code = errno;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return LUNA_OK;
    errno = code;
    return luna_error_errno(LUNA_CANT_CREATE, "cannot make the folder %s", path);
}

luna_err luna_make_dirs(const char *path, mode_t mode)
{
    char part[4096];
    if (strlen(path) >= sizeof part)
        return luna_error(LUNA_TOO_LARGE, "the path %.60s... is too long", path);
    for (size_t i = 0; path[i]; i++) {
        part[i] = path[i];
        part[i + 1] = '\0';
        if (path[i + 1] == '/' && path[i] != '/') LUNA_TRY(make_one(part, mode));
    }
    return make_one(path, mode);
}

luna_err luna_sync_dir(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return luna_error_errno(LUNA_IO, "cannot open the folder %s", path);
    const int rc = fsync(fd);
    const int code = errno;
    close(fd);
    errno = code;
    return rc == 0 ? LUNA_OK
                   : luna_error_errno(LUNA_IO, "cannot sync the folder %s", path);
}

luna_err luna_path_join(char *out, size_t room, const char *dir, const char *name)
{
    const size_t len = strlen(dir);
    const char *slash = len > 0 && dir[len - 1] == '/' ? "" : "/";
    const int n = snprintf(out, room, "%s%s%s", dir, slash, name);
    if (n >= 0 && (size_t)n < room) return LUNA_OK;
    return luna_error(LUNA_TOO_LARGE, "the path %.60s.../%.60s is too long", dir, name);
}

luna_err luna_path_absolute(const char *path, char *out, size_t room)
{
    char here[4096];
    if (path[0] == '/') return luna_path_join(out, room, "/", path + 1);
    if (!getcwd(here, sizeof here))
        return luna_error_errno(LUNA_IO, "cannot tell the working folder");
    return luna_path_join(out, room, here, path);
}
