#include "decoder/sink/record.h"

#include "common/file.h"
#include "decoder/sink/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_BYTES (LUNA_SINK_PATH_BYTES + LUNA_SINK_NOTE_BYTES + 512)

bool luna_step(const luna_fault *fault, const char *step)
{
    if (!fault->before) return true;
    const int code = fault->before(fault->arg, step);
    errno = code;
    return code == 0;
}

void luna_record_name(const luna_image_key *key, const char *suffix,
                      char out[LUNA_RECORD_NAME_BYTES])
{
    snprintf(out, LUNA_RECORD_NAME_BYTES, "%" PRIu64 "-%" PRIu64 "%s", key->input,
             key->index, suffix);
}

void luna_record_place(const char *root, const luna_id *job, luna_place *out)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(job, id);
    out->root = root;
    snprintf(out->folder, sizeof out->folder, "%s/%s", LUNA_PLACE_HIDDEN, id);
}

luna_err luna_random_suffix(const char *end, char out[LUNA_SUFFIX_BYTES])
{
    uint64_t random;
    if (getentropy(&random, sizeof random) != 0)
        return luna_error_errno(LUNA_INTERNAL, "the kernel gives no random numbers");
    snprintf(out, LUNA_SUFFIX_BYTES, ".%016" PRIx64 ".%s", random, end);
    return LUNA_OK;
}

//  ---- reading ------------------------------------------------------------------------

//  The value of the line that begins with `key`, its newline replaced by a NUL; *at
//  moves to the next line. NULL when the line is another one.
static char *take_line(char **at, const char *key)
{
    const size_t len = strlen(key);
    char *end = strchr(*at, '\n');
    if (!end || strncmp(*at, key, len) != 0) return NULL;
    char *value = *at + len;
    *end = '\0';
    *at = end + 1;
    return value;
}

static bool take_number(char **at, const char *key, uint64_t *out)
{
    const char *value = take_line(at, key);
    if (!value || value[0] < '0' || value[0] > '9' || strlen(value) > 18) return false;
    char *end;
    *out = strtoull(value, &end, 10);
    return *end == '\0';
}

//  A record without a note ends before it.
static bool take_note(char **at, char out[LUNA_SINK_NOTE_BYTES])
{
    out[0] = '\0';
    if (**at == '\0') return true;
    const char *value = take_line(at, "note ");
    if (!value || strlen(value) >= LUNA_SINK_NOTE_BYTES) return false;
    memcpy(out, value, strlen(value) + 1);
    return true;
}

static bool parse(char *text, const char *root, luna_image_record *out)
{
    const char *value = take_line(&text, "luna-image 1");
    if (!value || value[0] != '\0') return false;
    value = take_line(&text, "path ");
    if (!value || !luna_place_is_plain(value)) return false;
    if (luna_path_join(out->path, sizeof out->path, root, value) != LUNA_OK) return false;
    if (!take_number(&text, "bytes ", &out->bytes)) return false;
    value = take_line(&text, "sha256 ");
    if (!value || strspn(value, "0123456789abcdef") != 64 || value[64]) return false;
    memcpy(out->sha256, value, LUNA_SINK_SHA256_BYTES);
    if (!take_number(&text, "width ", &out->width)) return false;
    if (!take_number(&text, "height ", &out->height)) return false;
    return take_note(&text, out->note) && *text == '\0';
}

//  *len is -1 when the file is not there; a file that is too long is cut.
static luna_err read_text(int side, const char *name, char *text, ssize_t *len)
{
    const int fd = openat(side, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    *len = -1;
    if (fd < 0 && (errno == ENOENT || errno == ELOOP)) return LUNA_OK;
    if (fd < 0) return luna_error_errno(LUNA_IO, "cannot open the record %s", name);
    *len = pread(fd, text, RECORD_BYTES - 1, 0);
    const int code = errno;
    close(fd);
    errno = code;
    if (*len < 0) return luna_error_errno(LUNA_IO, "cannot read the record %s", name);
    text[*len] = '\0';
    return LUNA_OK;
}

void luna_record_folder(const char *root, const luna_image_record *record,
                        luna_place *out)
{
    const char *inside = record->path + strlen(root) + (strcmp(root, "/") != 0);
    const char *slash = strrchr(inside, '/');
    out->root = root;
    snprintf(out->folder, sizeof out->folder, "%.*s", slash ? (int)(slash - inside) : 0,
             inside);
}

//  Opens the record's file; *fd is -1 when it is gone or something else by now.
static luna_err open_file(const char *root, const luna_image_record *record, int *fd)
{
    luna_place place;
    int dir;
    *fd = -1;
    luna_record_folder(root, record, &place);
    const luna_err err = luna_place_open(&place, NULL, &dir);
    if (err == LUNA_NOT_FOUND || err == LUNA_FORBIDDEN) return LUNA_OK;
    if (err != LUNA_OK) return err;
    const char *name = strrchr(record->path, '/') + 1;
    *fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    const int code = errno;
    close(dir);
    errno = code;
    if (*fd >= 0 || code == ENOENT || code == ELOOP) return LUNA_OK;
    return luna_error_errno(LUNA_IO, "cannot open %s", record->path);
}

static luna_err check_file(const char *root, const luna_image_record *record, bool *same)
{
    char sha256[LUNA_SINK_SHA256_BYTES];
    uint64_t bytes;
    struct stat info;
    int fd;
    *same = false;
    LUNA_TRY(open_file(root, record, &fd));
    if (fd < 0) return LUNA_OK;
    luna_err err = LUNA_OK;
    const bool candidate = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                           (uint64_t)info.st_size == record->bytes;
    if (candidate) err = luna_sha256_file(fd, record->path, sha256, &bytes);
    close(fd);
    *same = candidate && err == LUNA_OK && strcmp(sha256, record->sha256) == 0;
    return err;
}

luna_err luna_record_read(const char *root, const luna_image_key *key,
                          luna_image_record *out, bool *found)
{
    char text[RECORD_BYTES], name[LUNA_RECORD_NAME_BYTES];
    luna_place place;
    ssize_t len;
    int side;
    *found = false;
    luna_record_place(root, &key->job, &place);
    const luna_err err = luna_place_open(&place, NULL, &side);
    if (err == LUNA_NOT_FOUND) return LUNA_OK;
    if (err != LUNA_OK) return err;
    luna_record_name(key, "", name);
    const luna_err read = read_text(side, name, text, &len);
    close(side);
    if (read != LUNA_OK) return read;
    if (len < 0 || strlen(text) != (size_t)len || !parse(text, root, out)) return LUNA_OK;
    out->key = *key;
    return check_file(root, out, found);
}

//  ---- writing ------------------------------------------------------------------------

static luna_err write_text(int fd, const char *text, const char *path,
                           const luna_fault *fault)
{
    if (!luna_step(fault, "write record") ||
        luna_write_all(fd, text, strlen(text), path) != LUNA_OK)
        return luna_place_error("cannot write", path);
    if (!luna_step(fault, "sync record") || fdatasync(fd) != 0)
        return luna_place_error("cannot sync", path);
    return LUNA_OK;
}

//  Names it and makes the name durable.
static luna_err name_record(int side, const char *temporary, const char *name,
                            const luna_fault *fault)
{
    const bool may = luna_step(fault, "rename record");
    if (!may || renameat(side, temporary, side, name) != 0)
        return may && errno == ENOENT
                   ? luna_error(LUNA_NOT_FOUND, "another attempt removed the record %s",
                                name)
                   : luna_place_error("cannot name the record", name);
    if (!luna_step(fault, "sync record folder") || fsync(side) != 0)
        return luna_error_errno(LUNA_IO, "cannot sync the folder of the record %s", name);
    return LUNA_OK;
}

static void make_text(const char *root, const luna_image_record *r,
                      char text[RECORD_BYTES])
{
    const char *inside = r->path + strlen(root) + (strcmp(root, "/") != 0);
    snprintf(text, RECORD_BYTES,
             "luna-image 1\npath %s\nbytes %" PRIu64 "\nsha256 %s\nwidth %" PRIu64
             "\nheight %" PRIu64 "\n%s%s%s",
             inside, r->bytes, r->sha256, r->width, r->height, r->note[0] ? "note " : "",
             r->note, r->note[0] ? "\n" : "");
}

luna_err luna_record_write(int side, const char *root, const luna_image_record *record,
                           const luna_fault *fault)
{
    char name[LUNA_RECORD_NAME_BYTES], temporary[LUNA_RECORD_NAME_BYTES];
    char text[RECORD_BYTES], suffix[LUNA_SUFFIX_BYTES];
    LUNA_TRY(luna_random_suffix("new", suffix));
    luna_record_name(&record->key, "", name);
    luna_record_name(&record->key, suffix, temporary);
    make_text(root, record, text);
    const bool may = luna_step(fault, "create record");
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    const int fd = may ? openat(side, temporary, flags, 0666) : -1;
    if (fd < 0) return luna_place_error("cannot create the record of", record->path);
    luna_err err = write_text(fd, text, record->path, fault);
    close(fd);
    if (err == LUNA_OK) err = name_record(side, temporary, name, fault);
    if (err != LUNA_OK) unlinkat(side, temporary, 0);
    return err;
}
