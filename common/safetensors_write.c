#include "common/file.h"
#include "common/json_text.h"
#include "common/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct luna_safetensors_writer {
    int fd;
    char *path;
    char *temp;  //  a name beside it; "" when there is no such file
    size_t temp_room;
    uint64_t left;  //  bytes of tensor data still to come
};

typedef struct text_buffer {
    char *data;  //  NULL while measuring
    size_t room;
    size_t len;
} text_buffer;

static void add(text_buffer *b, const char *text)
{
    const size_t len = strlen(text);
    if (b->data && b->len + len < b->room) memcpy(b->data + b->len, text, len);
    b->len += len;
}

static void add_number(text_buffer *b, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    add(b, text);
}

static void add_quoted(text_buffer *b, const char *text)
{
    const size_t room = b->data && b->len < b->room ? b->room - b->len : 0;
    b->len +=
        luna_json_text_write(text, strlen(text), b->data ? b->data + b->len : NULL, room);
}

static luna_err spec_bytes(const luna_tensor_spec *spec, uint64_t *out)
{
    uint64_t bytes = luna_dtype_size(spec->dtype);
    if (bytes == 0 || spec->rank > LUNA_TENSOR_RANK_MAX)
        return luna_error(LUNA_USAGE,
                          "the tensor '%.80s' has no known dtype or too many "
                          "dimensions",
                          spec->name);
    for (size_t i = 0; i < spec->rank; i++)
        if (__builtin_mul_overflow(bytes, spec->shape[i], &bytes) || bytes > SIZE_MAX)
            return luna_error(LUNA_USAGE, "the tensor '%.80s' is too large", spec->name);
    *out = bytes;
    return LUNA_OK;
}

static luna_err add_spec(text_buffer *b, const luna_tensor_spec *spec, uint64_t *at)
{
    uint64_t bytes = 0;
    LUNA_TRY(spec_bytes(spec, &bytes));
    add_quoted(b, spec->name);
    add(b, ":{\"dtype\":\"");
    add(b, luna_dtype_name(spec->dtype));
    add(b, "\",\"shape\":[");
    for (size_t i = 0; i < spec->rank; i++) {
        if (i > 0) add(b, ",");
        add_number(b, spec->shape[i]);
    }
    add(b, "],\"data_offsets\":[");
    add_number(b, *at);
    add(b, ",");
    if (__builtin_add_overflow(*at, bytes, at))
        return luna_error(LUNA_USAGE, "the tensors are too large together");
    add_number(b, *at);
    add(b, "]}");
    return LUNA_OK;
}

//  The header's text, padded with spaces so that the data starts at a multiple of 8.
static luna_err add_header(text_buffer *b, const luna_tensor_spec *specs, size_t count,
                           uint64_t *bytes)
{
    *bytes = 0;
    add(b, "{");
    for (size_t i = 0; i < count; i++) {
        if (i > 0) add(b, ",");
        LUNA_TRY(add_spec(b, &specs[i], bytes));
    }
    add(b, "}");
    while (b->len % 8 != 0) add(b, " ");
    return LUNA_OK;
}

static luna_err write_header(luna_safetensors_writer *w, const luna_tensor_spec *specs,
                             size_t count)
{
    text_buffer measure = {0}, text = {0};
    LUNA_TRY(add_header(&measure, specs, count, &w->left));
    if (measure.len > LUNA_SAFETENSORS_HEADER_MAX)
        return luna_error(LUNA_USAGE, "too many tensors for one safetensors file");
    text.room = measure.len + 1;
    text.data = calloc(1, text.room);
    if (!text.data)
        return luna_error(LUNA_NO_MEMORY, "no memory for a safetensors header");
    luna_err err = add_header(&text, specs, count, &w->left);
    const uint64_t len = text.len;
    if (err == LUNA_OK) err = luna_write_all(w->fd, &len, sizeof len, w->temp);
    if (err == LUNA_OK) err = luna_write_all(w->fd, text.data, text.len, w->temp);
    free(text.data);
    return err;
}

static luna_err writer_new(const char *path, luna_safetensors_writer **out)
{
    luna_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w) return luna_error(LUNA_NO_MEMORY, "no memory to write %s", path);
    *w = (luna_safetensors_writer){.fd = -1, .path = strdup(path)};
    w->temp_room = strlen(path) + 48;
    w->temp = calloc(1, w->temp_room);
    *out = w;
    if (w->path && w->temp) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "no memory to write %s", path);
}

//  A name that no other writer has, alive or dead. The mode is the user's umask's choice.
static luna_err open_temp(luna_safetensors_writer *w)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    for (unsigned i = 0; i < 1000 && w->fd < 0; i++) {
        snprintf(w->temp, w->temp_room, "%s.tmp-%ld-%u", w->path, (long)getpid(), i);
        w->fd = open(w->temp, flags, 0666);
        if (w->fd < 0 && errno != EEXIST) break;
    }
    if (w->fd >= 0) return LUNA_OK;
    w->temp[0] = '\0';
    return luna_error_errno(LUNA_CANT_CREATE, "cannot create %s", w->path);
}

luna_err luna_safetensors_create(const char *path, const luna_tensor_spec *specs,
                                 size_t count, luna_safetensors_writer **out)
{
    luna_safetensors_writer *w = NULL;
    luna_err err = writer_new(path, &w);
    if (err == LUNA_OK) err = open_temp(w);
    if (err == LUNA_OK) err = write_header(w, specs, count);
    if (err != LUNA_OK) luna_safetensors_abandon(&w);
    if (err == LUNA_OK) *out = w;
    return err;
}

luna_err luna_safetensors_append(luna_safetensors_writer *writer, const void *data,
                                 size_t len)
{
    if (len > writer->left)
        return luna_error(LUNA_USAGE, "%s: more data than its header announces",
                          writer->path);
    LUNA_TRY(luna_write_all(writer->fd, data, len, writer->path));
    writer->left -= len;
    return LUNA_OK;
}

static luna_err finish(luna_safetensors_writer *w)
{
    if (w->left > 0)
        return luna_error(LUNA_USAGE, "%s: %llu bytes less than its header announces",
                          w->path, (unsigned long long)w->left);
    const int synced = fdatasync(w->fd);
    const int closed = close(w->fd);
    w->fd = -1;
    if (synced != 0 || closed != 0)
        return luna_error_errno(LUNA_IO, "cannot write %s", w->path);
    if (rename(w->temp, w->path) != 0)
        return luna_error_errno(LUNA_CANT_CREATE, "cannot create %s", w->path);
    w->temp[0] = '\0';
    return LUNA_OK;
}

luna_err luna_safetensors_commit(luna_safetensors_writer **writer)
{
    const luna_err err = finish(*writer);
    luna_safetensors_abandon(writer);
    return err;
}

void luna_safetensors_abandon(luna_safetensors_writer **writer)
{
    luna_safetensors_writer *w = *writer;
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->temp && w->temp[0]) unlink(w->temp);
    free(w->path);
    free(w->temp);
    free(w);
    *writer = NULL;
}
