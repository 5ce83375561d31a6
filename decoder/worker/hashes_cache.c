#include "decoder/worker/hashes_cache.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"

#define NUMBERS_BYTES 80  //  of a line: three numbers and their blanks

//  ---- in memory ---------------------------------------------------------------------

void luna_hash_list_clear(luna_hash_list *list)
{
    for (size_t i = 0; i < LUNA_HASHES_MAX; i++) luna_file_key_free(&list->items[i].file);
}

const luna_hash *luna_hash_list_find(const luna_hash_list *list,
                                     const luna_file_key *file)
{
    for (size_t i = 0; i < LUNA_HASHES_MAX && list->items[i].file.path; i++)
        if (luna_file_key_equal(&list->items[i].file, file)) return &list->items[i];
    return NULL;
}

//  Where another version of the file is, else the place used longest ago.
static luna_hash *place_for(luna_hash_list *list, const char *path)
{
    for (size_t i = 0; i < LUNA_HASHES_MAX && list->items[i].file.path; i++)
        if (strcmp(list->items[i].file.path, path) == 0) return &list->items[i];
    return &list->items[list->next++ % LUNA_HASHES_MAX];
}

bool luna_hash_list_put(luna_hash_list *list, const luna_hash *hash)
{
    luna_file_key copy;
    if (luna_file_key_copy(&hash->file, &copy) != LUNA_OK) return false;
    luna_hash *to = place_for(list, hash->file.path);
    luna_file_key_free(&to->file);
    *to = *hash;
    to->file = copy;
    return true;
}

//  ---- lines -------------------------------------------------------------------------

static bool is_sha256(const char *text)
{
    return strspn(text, "0123456789abcdef") == LUNA_SINK_SHA256_BYTES - 1 &&
           text[LUNA_SINK_SHA256_BYTES - 1] == ' ';
}

//  `line` ends with a NUL and becomes the path's memory.
static bool parse_line(const char *line, luna_hash *out)
{
    int used = 0;
    *out = (luna_hash){0};
    if (!is_sha256(line)) return false;
    memcpy(out->sha256, line, LUNA_SINK_SHA256_BYTES - 1);
    line += LUNA_SINK_SHA256_BYTES;
    if (sscanf(line, "%" SCNu64 " %" SCNd64 " %" SCNu64 " %n", &out->file.bytes,
               &out->file.changed_ns, &out->file.inode, &used) < 3)
        return false;
    out->file.path = line + used;
    return used > 0 && out->file.path[0] == '/';
}

static void read_lines(char *text, luna_hash_list *list)
{
    char *end;
    for (; (end = strchr(text, '\n')); text = end + 1) {
        luna_hash hash;
        *end = '\0';
        if (parse_line(text, &hash)) (void)luna_hash_list_put(list, &hash);
    }
}

//  ---- the file ----------------------------------------------------------------------

static void log_failure(const char *path)
{
    luna_log(LUNA_LOG_WARNING, "vae_hashes_not_kept",
             "path=\"%s\" detail=\"%s\" next=\"they are computed again\"", path,
             luna_error_text());
}

void luna_hash_list_read(const char *path, luna_hash_list *list)
{
    char *text = NULL;
    size_t len = 0;
    const luna_err err = luna_file_read(path, LUNA_HASHES_FILE_MAX, &text, &len);
    if (err == LUNA_OK) read_lines(text, list);
    free(text);
    if (err == LUNA_TOO_LARGE && unlink(path) == 0) return;
    if (err != LUNA_OK && err != LUNA_NOT_FOUND) log_failure(path);
}

static luna_err make_folder(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    const size_t len = slash ? (size_t)(slash - path) : 0;
    if (len == 0 || len >= sizeof folder) return LUNA_OK;
    memcpy(folder, path, len);
    folder[len] = '\0';
    return luna_make_dirs(folder, 0700);
}

//  One write, so that lines of several decoders do not mix.
static luna_err append(const char *path, const char *line, size_t len)
{
    LUNA_TRY(make_folder(path));
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return luna_error_errno(LUNA_CANT_CREATE, "cannot write %s", path);
    const luna_err err = luna_write_all(fd, line, len, path);
    close(fd);
    return err;
}

void luna_hash_list_append(const char *path, const luna_hash *hash)
{
    const size_t room =
        LUNA_SINK_SHA256_BYTES + NUMBERS_BYTES + strlen(hash->file.path) + 2;
    char *line = malloc(room);
    if (!line || strchr(hash->file.path, '\n')) {
        free(line);
        return;
    }
    const int len = snprintf(line, room, "%s %" PRIu64 " %" PRId64 " %" PRIu64 " %s\n",
                             hash->sha256, hash->file.bytes, hash->file.changed_ns,
                             hash->file.inode, hash->file.path);
    if (append(path, line, (size_t)len) != LUNA_OK) log_failure(path);
    free(line);
}
