#include "common/safetensors.h"

#include "common/file.h"
#include "common/safetensors_header.h"

#include <stdlib.h>
#include <string.h>

struct luna_safetensors {
    luna_map map;  //  empty when the caller owns the bytes
    char *label;
    uint64_t bytes;
    uint64_t header_bytes;           //  with the 8 before it
    luna_safetensors_header header;  //  tensors sorted by name
};

static luna_err damaged(const luna_safetensors *file, const char *name, const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "%s: the tensor '%.80s' %s", file->label, name,
                      what);
}

//  count and bytes from dtype and shape, against the length the offsets give.
static luna_err measure(const luna_safetensors *file, header_tensor *t)
{
    luna_tensor *tensor = &t->tensor;
    size_t count = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(count, tensor->shape[i], &count))
            return damaged(file, tensor->name, "has a shape too large to count");
    const size_t size = luna_dtype_size(tensor->dtype);
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes))
        return damaged(file, tensor->name, "has a shape too large to count");
    if (tensor->dtype != LUNA_DTYPE_OTHER && bytes != tensor->bytes)
        return damaged(file, tensor->name,
                       "has offsets that disagree with its dtype and shape");
    tensor->count = count;
    return LUNA_OK;
}

static int by_begin(const void *a, const void *b)
{
    const header_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    const header_tensor *x = a, *y = b;
    return strcmp(x->tensor.name, y->tensor.name);
}

//  Every tensor lies in the body, starts where the one before it ends, and the last
//  ends where the file does.
static luna_err place(luna_safetensors *file, const uint8_t *body, uint64_t body_bytes)
{
    luna_safetensors_header *h = &file->header;
    uint64_t at = 0;
    if (h->tensor_count > 1)
        qsort(h->tensors, h->tensor_count, sizeof *h->tensors, by_begin);
    for (size_t i = 0; i < h->tensor_count; i++) {
        header_tensor *t = &h->tensors[i];
        if (t->begin > t->end)
            return damaged(file, t->tensor.name, "ends before it starts");
        if (t->end > body_bytes)
            return damaged(file, t->tensor.name,
                           "lies outside the file, which was cut short");
        if (t->begin < at)
            return damaged(file, t->tensor.name, "overlaps another tensor");
        if (t->begin > at)
            return damaged(file, t->tensor.name, "has unused bytes before it");
        at = t->end;
        t->tensor.data = body + t->begin;
        t->tensor.bytes = (size_t)(t->end - t->begin);
        LUNA_TRY(measure(file, t));
    }
    if (at == body_bytes) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "%s: %llu bytes follow the last tensor",
                      file->label, (unsigned long long)(body_bytes - at));
}

static luna_err sort_names(luna_safetensors *file)
{
    luna_safetensors_header *h = &file->header;
    if (h->tensor_count > 1)
        qsort(h->tensors, h->tensor_count, sizeof *h->tensors, by_name);
    for (size_t i = 1; i < h->tensor_count; i++)
        if (strcmp(h->tensors[i - 1].tensor.name, h->tensors[i].tensor.name) == 0)
            return damaged(file, h->tensors[i].tensor.name, "is given twice");
    return LUNA_OK;
}

//  A zip archive, which is what PyTorch writes, or a bare pickle.
static bool is_pickle(const uint8_t *data)
{
    return memcmp(data, "PK\3\4", 4) == 0 || (data[0] == 0x80 && data[1] <= 5);
}

static luna_err refuse_pickle(const luna_safetensors *file)
{
    static const char convert[] =
        "import sys, torch, safetensors.torch as s; "
        "d = torch.load(sys.argv[1], 'cpu', weights_only=True); "
        "d = d.get('state_dict', d); "
        "s.save_file({k: v.contiguous().clone() for k, v in d.items() "
        "if hasattr(v, 'dtype')}, sys.argv[2])";
    return luna_error(
        LUNA_BAD_REQUEST,
        "%s: a PyTorch file (a pickle, which can run code when it is read), "
        "not safetensors; convert it with: python3 -c \"%s\" OLD "
        "NEW.safetensors",
        file->label, convert);
}

static luna_err header_bytes(const luna_safetensors *file, const uint8_t *data,
                             size_t len, size_t *out)
{
    uint64_t header;
    if (len < 8)
        return luna_error(LUNA_BAD_REQUEST, "%s has %zu bytes: not a safetensors file",
                          file->label, len);
    memcpy(&header, data, sizeof header);
    if (header > LUNA_SAFETENSORS_HEADER_MAX && is_pickle(data))
        return refuse_pickle(file);
    if (header > LUNA_SAFETENSORS_HEADER_MAX)
        return luna_error(
            LUNA_BAD_REQUEST,
            "%s: not a safetensors file (a header of %llu bytes; at most %u)",
            file->label, (unsigned long long)header, LUNA_SAFETENSORS_HEADER_MAX);
    if (header > len - 8)
        return luna_error(
            LUNA_BAD_REQUEST,
            "%s: cut short inside its header (%llu bytes announced, %zu there)",
            file->label, (unsigned long long)header, len - 8);
    *out = (size_t)header;
    return LUNA_OK;
}

static luna_err read_header(luna_safetensors *file, const uint8_t *data, size_t len)
{
    size_t header = 0;
    LUNA_TRY(header_bytes(file, data, len, &header));
    file->bytes = len;
    file->header_bytes = 8 + header;
    LUNA_TRY(luna_safetensors_header_scan((const char *)data + 8, header, file->label,
                                          &file->header));
    LUNA_TRY(place(file, data + 8 + header, len - 8 - header));
    return sort_names(file);
}

luna_err luna_safetensors_parse(const void *data, size_t len, const char *label,
                                luna_safetensors **out)
{
    luna_safetensors *file = calloc(1, sizeof *file);
    if (file) file->label = strdup(label);
    if (!file || !file->label) {
        free(file);
        return luna_error(LUNA_NO_MEMORY, "%s: no memory to open it", label);
    }
    const luna_err err = read_header(file, data, len);
    if (err != LUNA_OK) luna_safetensors_close(&file);
    *out = file;
    return err;
}

luna_err luna_safetensors_open(const char *path, luna_safetensors **out)
{
    luna_map map;
    luna_safetensors *file = NULL;
    LUNA_TRY(luna_map_open(path, &map));
    const luna_err err = luna_safetensors_parse(map.data, map.len, path, &file);
    if (err != LUNA_OK) {
        luna_map_close(&map);
        return err;
    }
    file->map = map;
    *out = file;
    return LUNA_OK;
}

void luna_safetensors_close(luna_safetensors **file)
{
    if (!*file) return;
    luna_safetensors_header_free(&(*file)->header);
    luna_map_close(&(*file)->map);
    free((*file)->label);
    free(*file);
    *file = NULL;
}

const char *luna_safetensors_label(const luna_safetensors *file)
{
    return file->label;
}

uint64_t luna_safetensors_bytes(const luna_safetensors *file)
{
    return file->bytes;
}

uint64_t luna_safetensors_header_bytes(const luna_safetensors *file)
{
    return file->header_bytes;
}

size_t luna_safetensors_count(const luna_safetensors *file)
{
    return file->header.tensor_count;
}

const luna_tensor *luna_safetensors_at(const luna_safetensors *file, size_t index)
{
    return index < file->header.tensor_count ? &file->header.tensors[index].tensor : NULL;
}

const luna_tensor *luna_safetensors_find(const luna_safetensors *file, const char *name)
{
    const header_tensor key = {.tensor.name = name};
    const luna_safetensors_header *h = &file->header;
    if (h->tensor_count == 0) return NULL;
    const header_tensor *found =
        bsearch(&key, h->tensors, h->tensor_count, sizeof *h->tensors, by_name);
    return found ? &found->tensor : NULL;
}

const char *luna_safetensors_metadata(const luna_safetensors *file, const char *key,
                                      size_t *len)
{
    for (size_t i = 0; i < file->header.pair_count; i++) {
        const header_pair *pair = &file->header.pairs[i];
        if (strcmp(pair->key.data, key) != 0) continue;
        if (len) *len = pair->value.len;
        return pair->value.data;
    }
    return NULL;
}
