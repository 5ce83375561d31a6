#include "common/safetensors_header.h"

#include "common/json_text.h"

#include <stdlib.h>
#include <string.h>

typedef struct scanner {
    const char *json;
    size_t len;
    size_t at;
    const char *label;
    size_t text_at;  //  bytes of header->texts in use
    size_t tensor_room;
    size_t pair_room;
    bool has_metadata;
    luna_safetensors_header *header;
} scanner;

static luna_err damaged(const scanner *s, const char *what)
{
    return luna_error(LUNA_BAD_REQUEST,
                      "%s: the safetensors header is damaged at byte %zu: %s", s->label,
                      s->at + 8, what);
}

static void skip_space(scanner *s)
{
    while (s->at < s->len && s->json[s->at] && strchr(" \t\r\n", s->json[s->at])) s->at++;
}

//  Whether `c` comes next; eats it.
static bool eat(scanner *s, char c)
{
    skip_space(s);
    if (s->at >= s->len || s->json[s->at] != c) return false;
    s->at++;
    return true;
}

static luna_err expect(scanner *s, char c)
{
    const char what[] = {'\'', c,   '\'', ' ', 'e', 'x', 'p',
                         'e',  'c', 't',  'e', 'd', '\0'};
    return eat(s, c) ? LUNA_OK : damaged(s, what);
}

//  A text takes two quotation marks in the file, so text and NUL fit where every text
//  before it fitted too.
static luna_err scan_text(scanner *s, header_text *out)
{
    const char *fault = "";
    char *place = s->header->texts + s->text_at;
    skip_space(s);
    const size_t used =
        luna_json_text_read(s->json + s->at, s->len - s->at, place, &out->len, &fault);
    if (used == 0) return damaged(s, fault);
    place[out->len] = '\0';
    out->data = place;
    s->text_at += out->len + 1;
    s->at += used;
    return LUNA_OK;
}

//  A name that C code compares: no NUL inside.
static luna_err scan_name(scanner *s, header_text *out)
{
    LUNA_TRY(scan_text(s, out));
    return strlen(out->data) == out->len ? LUNA_OK : damaged(s, "a name holds a NUL");
}

static luna_err scan_number(scanner *s, uint64_t *out)
{
    skip_space(s);
    const size_t start = s->at;
    uint64_t value = 0;
    for (; s->at < s->len && s->json[s->at] >= '0' && s->json[s->at] <= '9'; s->at++) {
        const uint64_t digit = (uint64_t)(s->json[s->at] - '0');
        if (value > (UINT64_MAX - digit) / 10) return damaged(s, "a number is too large");
        value = value * 10 + digit;
    }
    if (s->at == start) return damaged(s, "a whole number expected");
    if (s->json[start] == '0' && s->at > start + 1) return damaged(s, "a leading zero");
    *out = value;
    return LUNA_OK;
}

//  [a, b, ...] with at most `room` numbers.
static luna_err scan_numbers(scanner *s, uint64_t *out, size_t room, size_t *count)
{
    *count = 0;
    LUNA_TRY(expect(s, '['));
    if (eat(s, ']')) return LUNA_OK;
    do {
        if (*count == room) return damaged(s, "too many numbers in a list");
        LUNA_TRY(scan_number(s, &out[*count]));
        ++*count;
    } while (eat(s, ','));
    return expect(s, ']');
}

static luna_err scan_shape(scanner *s, luna_tensor *tensor)
{
    uint64_t size[LUNA_TENSOR_RANK_MAX];
    LUNA_TRY(scan_numbers(s, size, LUNA_TENSOR_RANK_MAX, &tensor->rank));
    for (size_t i = 0; i < tensor->rank; i++) {
        if (size[i] > SIZE_MAX) return damaged(s, "a size is too large");
        tensor->shape[i] = (size_t)size[i];
    }
    return LUNA_OK;
}

static luna_err scan_offsets(scanner *s, header_tensor *out)
{
    uint64_t pair[2] = {0, 0};
    size_t count;
    LUNA_TRY(scan_numbers(s, pair, 2, &count));
    if (count != 2) return damaged(s, "data_offsets needs two numbers");
    out->begin = pair[0];
    out->end = pair[1];
    return LUNA_OK;
}

enum { FIELD_DTYPE = 1, FIELD_SHAPE = 2, FIELD_OFFSETS = 4, FIELD_ALL = 7 };

static int field_of(const char *name)
{
    if (strcmp(name, "dtype") == 0) return FIELD_DTYPE;
    if (strcmp(name, "shape") == 0) return FIELD_SHAPE;
    return strcmp(name, "data_offsets") == 0 ? FIELD_OFFSETS : 0;
}

static luna_err scan_dtype(scanner *s, luna_tensor *tensor)
{
    header_text name;
    LUNA_TRY(scan_name(s, &name));
    tensor->dtype_name = name.data;
    tensor->dtype = luna_dtype_parse(name.data, name.len);
    return LUNA_OK;
}

static luna_err scan_field(scanner *s, header_tensor *out, int *seen)
{
    header_text name;
    LUNA_TRY(scan_name(s, &name));
    const int field = field_of(name.data);
    if (field == 0) return damaged(s, "an unknown field of a tensor");
    if (*seen & field) return damaged(s, "a field given twice");
    *seen |= field;
    LUNA_TRY(expect(s, ':'));
    if (field == FIELD_DTYPE) return scan_dtype(s, &out->tensor);
    if (field == FIELD_SHAPE) return scan_shape(s, &out->tensor);
    return scan_offsets(s, out);
}

//  Makes room for one more element of a growing table.
static luna_err grow(void **table, size_t count, size_t *room, size_t size)
{
    if (count < *room) return LUNA_OK;
    const size_t more = *room ? *room * 2 : 64;
    void *larger = realloc(*table, more * size);
    if (!larger) return luna_error(LUNA_NO_MEMORY, "no memory for a safetensors header");
    *table = larger;
    *room = more;
    return LUNA_OK;
}

static luna_err scan_tensor(scanner *s, const char *name)
{
    luna_safetensors_header *h = s->header;
    void *table = h->tensors;
    const luna_err err =
        grow(&table, h->tensor_count, &s->tensor_room, sizeof *h->tensors);
    h->tensors = table;
    LUNA_TRY(err);
    header_tensor *out = &h->tensors[h->tensor_count++];
    *out = (header_tensor){.tensor.name = name};
    int seen = 0;
    LUNA_TRY(expect(s, '{'));
    do {
        LUNA_TRY(scan_field(s, out, &seen));
    } while (eat(s, ','));
    LUNA_TRY(expect(s, '}'));
    return seen == FIELD_ALL ? LUNA_OK
                             : damaged(s, "a tensor lacks dtype, shape or data_offsets");
}

static luna_err scan_pair(scanner *s)
{
    luna_safetensors_header *h = s->header;
    void *table = h->pairs;
    const luna_err err = grow(&table, h->pair_count, &s->pair_room, sizeof *h->pairs);
    h->pairs = table;
    LUNA_TRY(err);
    header_pair *out = &h->pairs[h->pair_count++];
    LUNA_TRY(scan_name(s, &out->key));
    LUNA_TRY(expect(s, ':'));
    return scan_text(s, &out->value);
}

static luna_err scan_metadata(scanner *s)
{
    LUNA_TRY(expect(s, '{'));
    if (eat(s, '}')) return LUNA_OK;
    do {
        LUNA_TRY(scan_pair(s));
    } while (eat(s, ','));
    return expect(s, '}');
}

static luna_err scan_member(scanner *s)
{
    header_text name;
    LUNA_TRY(scan_name(s, &name));
    LUNA_TRY(expect(s, ':'));
    if (strcmp(name.data, "__metadata__") != 0) return scan_tensor(s, name.data);
    if (s->has_metadata) return damaged(s, "__metadata__ given twice");
    s->has_metadata = true;
    return scan_metadata(s);
}

static luna_err scan_all(scanner *s)
{
    LUNA_TRY(expect(s, '{'));
    if (!eat(s, '}')) {
        do {
            LUNA_TRY(scan_member(s));
        } while (eat(s, ','));
        LUNA_TRY(expect(s, '}'));
    }
    skip_space(s);
    return s->at == s->len ? LUNA_OK : damaged(s, "something follows the last '}'");
}

luna_err luna_safetensors_header_scan(const char *json, size_t len, const char *label,
                                      luna_safetensors_header *out)
{
    *out = (luna_safetensors_header){.texts = malloc(len + 1)};
    if (!out->texts)
        return luna_error(LUNA_NO_MEMORY, "%s: no memory for its header", label);
    scanner s = {.json = json, .len = len, .label = label, .header = out};
    const luna_err err = scan_all(&s);
    if (err != LUNA_OK) luna_safetensors_header_free(out);
    return err;
}

void luna_safetensors_header_free(luna_safetensors_header *header)
{
    free(header->texts);
    free(header->tensors);
    free(header->pairs);
    *header = (luna_safetensors_header){0};
}
