//  Structs to msgpack. One walk over the schema serves both the size and the bytes:
//  the size pass writes into a sink that only counts.

#include "proto/codec.h"
#include "common/utf8.h"
#include "proto/schema.h"

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct sink {
    uint8_t *data;  //  NULL: count only
    size_t room;
    size_t used;
} sink;

static int sink_write(void *context, const char *data, size_t len)
{
    sink *to = context;
    if (to->data) {
        if (len > to->room - to->used) return -1;
        memcpy(to->data + to->used, data, len);
    }
    to->used += len;
    return 0;
}

//  Of a long run three samples: latents differ everywhere or nowhere.
enum { SAMPLE_BYTES = 16384, SAMPLED_BYTES = 4 * SAMPLE_BYTES };

static int sum_write(void *context, const char *data, size_t len)
{
    XXH3_state_t *sum = context;
    XXH3_64bits_update(sum, &len, sizeof len);
    if (len < SAMPLED_BYTES) return (int)XXH3_64bits_update(sum, data, len);
    XXH3_64bits_update(sum, data, SAMPLE_BYTES);
    XXH3_64bits_update(sum, data + len / 2 - SAMPLE_BYTES / 2, SAMPLE_BYTES);
    XXH3_64bits_update(sum, data + len - SAMPLE_BYTES, SAMPLE_BYTES);
    return 0;
}

typedef struct list_view {
    const void *items;
    size_t count;
} list_view;

//  Lists are struct { const T *items; size_t count; }: read by copying the
//  representation, since T differs.
static list_view read_list(const void *at)
{
    list_view view;
    memcpy(&view, at, sizeof view);
    return view;
}

static bool is_default(const luna_field *field, const void *at)
{
    switch (field->kind) {
        case LUNA_KIND_UINT:
            return *(const uint64_t *)at == field->fallback;
        case LUNA_KIND_INT:
            return *(const int64_t *)at == 0;
        case LUNA_KIND_FLOAT:
            return !(*(const double *)at < 0 || *(const double *)at > 0);
        case LUNA_KIND_BOOL:
            return *(const bool *)at == (field->fallback != 0);
        case LUNA_KIND_TEXT:
            return ((const luna_text *)at)->data == NULL;
        case LUNA_KIND_BYTES:
            return ((const luna_blob *)at)->data == NULL;
        case LUNA_KIND_ID:
            return luna_id_is_nil(at);
        case LUNA_KIND_DIMS:
            return ((const luna_dims *)at)->count == 0;
        case LUNA_KIND_PAIRS:
        case LUNA_KIND_LIST:
            return read_list(at).count == 0;
        case LUNA_KIND_MAP:
            break;
    }
    const void *map;
    memcpy(&map, at, sizeof map);
    return map == NULL;
}

static uint64_t largest(const luna_dims *dims)
{
    uint64_t most = 0;
    for (size_t i = 0; i < dims->count && i < LUNA_MAX_DIMS; i++)
        if (dims->at[i] > most) most = dims->at[i];
    return most;
}

//  How much of its limit a value takes; ids and bools are always within.
static uint64_t extent(const luna_field *field, const void *at)
{
    switch (field->kind) {
        case LUNA_KIND_UINT:
            return *(const uint64_t *)at;
        case LUNA_KIND_INT: {
            const int64_t value = *(const int64_t *)at;
            return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
        }
        case LUNA_KIND_TEXT:
            return ((const luna_text *)at)->len;
        case LUNA_KIND_BYTES:
            return ((const luna_blob *)at)->len;
        case LUNA_KIND_DIMS:
            return largest(at);
        case LUNA_KIND_PAIRS:
        case LUNA_KIND_LIST:
            return read_list(at).count;
        default:
            return 0;
    }
}

static bool is_text(luna_text text)
{
    return text.data && !memchr(text.data, 0, text.len) &&
           luna_utf8_valid(text.data, text.len);
}

static const char *fault_of_pairs(list_view list)
{
    const luna_pair *pairs = list.items;
    for (size_t i = 0; i < list.count; i++) {
        if (!is_text(pairs[i].key)) return "has a key that is no text";
        if (pairs[i].key.len > LUNA_MAX_JSON_BYTES ||
            pairs[i].value.len > LUNA_MAX_JSON_BYTES)
            return "has an entry that is too long";
    }
    return NULL;
}

//  What a reader would refuse must not leave: it would take the whole message with it.
static const char *fault_of(const luna_field *field, const void *at)
{
    switch (field->kind) {
        case LUNA_KIND_TEXT:
            if (is_default(field, at) || is_text(*(const luna_text *)at)) return NULL;
            return "holds a NUL or is not UTF-8";
        case LUNA_KIND_FLOAT:
            return isfinite(*(const double *)at) ? NULL : "is not a finite number";
        case LUNA_KIND_DIMS:
            if (((const luna_dims *)at)->count <= LUNA_MAX_DIMS) return NULL;
            return "has too many dimensions";
        case LUNA_KIND_PAIRS:
            return fault_of_pairs(read_list(at));
        default:
            return NULL;
    }
}

//  A required text, bytes or id must be there; required numbers and lists may be 0.
static luna_err check_field(const luna_field *field, const void *at)
{
    const bool can_be_absent = field->kind == LUNA_KIND_TEXT ||
                               field->kind == LUNA_KIND_BYTES ||
                               field->kind == LUNA_KIND_ID;
    if (field->required && can_be_absent && is_default(field, at))
        return luna_error(LUNA_BAD_REQUEST, "the field '%s' is missing", field->key);
    if (extent(field, at) > field->max)
        return luna_error(LUNA_BAD_REQUEST, "the field '%s' is over its limit of %llu",
                          field->key, (unsigned long long)field->max);
    const char *fault = fault_of(field, at);
    if (!fault) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "the field '%s' %s", field->key, fault);
}

static luna_err put_map(msgpack_packer *to, const luna_schema *schema, const void *msg,
                        size_t extra);

static void put_text(msgpack_packer *to, const char *data, size_t len)
{
    msgpack_pack_str(to, len);
    msgpack_pack_str_body(to, data, len);
}

static void put_key(msgpack_packer *to, const char *key)
{
    put_text(to, key, strlen(key));
}

static void put_bin(msgpack_packer *to, const void *data, size_t len)
{
    msgpack_pack_bin(to, len);
    if (len) msgpack_pack_bin_body(to, data, len);
}

static void put_dims(msgpack_packer *to, const luna_dims *dims)
{
    msgpack_pack_array(to, dims->count);
    for (size_t i = 0; i < dims->count; i++) msgpack_pack_uint64(to, dims->at[i]);
}

static void put_pairs(msgpack_packer *to, list_view list)
{
    const luna_pair *pairs = list.items;
    msgpack_pack_map(to, list.count);
    for (size_t i = 0; i < list.count; i++) {
        put_text(to, pairs[i].key.data, pairs[i].key.len);
        put_bin(to, pairs[i].value.data, pairs[i].value.len);
    }
}

static luna_err put_list(msgpack_packer *to, const luna_schema *schema, list_view list)
{
    msgpack_pack_array(to, list.count);
    const char *item = list.items;
    for (size_t i = 0; i < list.count; i++, item += schema->size)
        LUNA_TRY(put_map(to, schema, item, 0));
    return LUNA_OK;
}

static void put_bool(msgpack_packer *to, bool value)
{
    if (value)
        msgpack_pack_true(to);
    else
        msgpack_pack_false(to);
}

static luna_err put_value(msgpack_packer *to, const luna_field *field, const void *at)
{
    const luna_text *text = at;
    const luna_blob *blob = at;
    const void *map;
    switch (field->kind) {
        case LUNA_KIND_UINT:
            msgpack_pack_uint64(to, *(const uint64_t *)at);
            break;
        case LUNA_KIND_INT:
            msgpack_pack_int64(to, *(const int64_t *)at);
            break;
        case LUNA_KIND_FLOAT:
            msgpack_pack_double(to, *(const double *)at);
            break;
        case LUNA_KIND_BOOL:
            put_bool(to, *(const bool *)at);
            break;
        case LUNA_KIND_TEXT:
            put_text(to, text->data, text->len);
            break;
        case LUNA_KIND_BYTES:
            put_bin(to, blob->data, blob->len);
            break;
        case LUNA_KIND_ID:
            put_bin(to, ((const luna_id *)at)->byte, LUNA_ID_BYTES);
            break;
        case LUNA_KIND_DIMS:
            put_dims(to, at);
            break;
        case LUNA_KIND_PAIRS:
            put_pairs(to, read_list(at));
            break;
        case LUNA_KIND_LIST:
            return put_list(to, field->sub, read_list(at));
        case LUNA_KIND_MAP:
            memcpy(&map, at, sizeof map);
            return put_map(to, field->sub, map, 0);
    }
    return LUNA_OK;
}

static bool is_written(const luna_field *field, const void *at)
{
    return field->required || !is_default(field, at);
}

//  `extra` entries come before the fields: the envelope of a whole message.
static luna_err put_map(msgpack_packer *to, const luna_schema *schema, const void *msg,
                        size_t extra)
{
    size_t count = extra;
    for (size_t i = 0; i < schema->count; i++)
        count +=
            is_written(&schema->fields[i], (const char *)msg + schema->fields[i].offset);
    msgpack_pack_map(to, count);
    if (extra) {
        put_key(to, "luna");
        msgpack_pack_uint64(to, LUNA_WIRE_VERSION);
        put_key(to, "type");
        put_key(to, schema->name);
    }
    for (size_t i = 0; i < schema->count; i++) {
        const luna_field *field = &schema->fields[i];
        const void *at = (const char *)msg + field->offset;
        LUNA_TRY(check_field(field, at));
        if (!is_written(field, at)) continue;
        put_key(to, field->key);
        LUNA_TRY(put_value(to, field, at));
    }
    return LUNA_OK;
}

static luna_err write_message(luna_msg_type type, const void *msg, sink *to)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, to, sink_write);
    return put_map(&packer, luna_msg_schema(type), msg, 2);
}

uint64_t luna_msg_sum(luna_msg_type type, const void *msg)
{
    uint64_t sum = 0;
    msgpack_packer packer;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return 0;
    XXH3_64bits_reset(state);
    msgpack_packer_init(&packer, state, sum_write);
    if (put_map(&packer, luna_msg_schema(type), msg, 2) == LUNA_OK)
        sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return sum;
}

size_t luna_msg_size(luna_msg_type type, const void *msg)
{
    sink counter = {0};
    return write_message(type, msg, &counter) == LUNA_OK ? counter.used : 0;
}

luna_err luna_msg_encode(luna_msg_type type, const void *msg, void *buf, size_t room,
                         size_t *used)
{
    sink counter = {0};
    LUNA_TRY(write_message(type, msg, &counter));
    if (counter.used > room)
        return luna_error(LUNA_TOO_LARGE, "a %s of %zu bytes does not fit in %zu",
                          luna_msg_schema(type)->name, counter.used, room);
    sink to = {.data = buf, .room = room};
    LUNA_TRY(write_message(type, msg, &to));
    *used = to.used;
    return LUNA_OK;
}

luna_err luna_msg_pack(luna_msg_type type, const void *msg, void **out, size_t *len)
{
    sink counter = {0};
    LUNA_TRY(write_message(type, msg, &counter));
    void *data = malloc(counter.used);
    if (!data)
        return luna_error(LUNA_NO_MEMORY, "no memory for a %s of %zu bytes",
                          luna_msg_schema(type)->name, counter.used);
    const luna_err err = luna_msg_encode(type, msg, data, counter.used, len);
    if (err == LUNA_OK)
        *out = data;
    else
        free(data);
    return err;
}
