//  msgpack to structs. msgpack-c parses the scanned buffer without copying; one walk
//  over the schema then fills the struct.

#include "common/arena.h"
#include "common/utf8.h"
#include "proto/codec.h"
#include "proto/scan.h"
#include "proto/schema.h"

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

struct luna_packet {
    msgpack_zone zone;
    msgpack_object root;
    luna_msg_type type;
    luna_arena lists;
};

typedef struct reader {
    luna_arena *lists;
    const luna_field *field;  //  for messages
} reader;

static luna_err wrong(const reader *r, const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "the field '%s' %s", r->field->key, what);
}

static luna_err over_limit(const reader *r)
{
    return luna_error(LUNA_BAD_REQUEST, "the field '%s' is over its limit of %llu",
                      r->field->key, (unsigned long long)r->field->max);
}

static const msgpack_object *find(const msgpack_object_map *map, const char *key)
{
    const size_t len = strlen(key);
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *k = &map->ptr[i].key;
        if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == len &&
            memcmp(k->via.str.ptr, key, len) == 0)
            return &map->ptr[i].val;
    }
    return NULL;
}

static luna_err read_uint(const reader *r, const msgpack_object *value, uint64_t *out)
{
    if (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong(r, "must be a non-negative integer");
    if (value->via.u64 > r->field->max) return over_limit(r);
    *out = value->via.u64;
    return LUNA_OK;
}

static luna_err read_int(const reader *r, const msgpack_object *value, int64_t *out)
{
    const bool negative = value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER;
    if (!negative && value->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong(r, "must be an integer");
    const uint64_t size = negative ? 0 - value->via.u64 : value->via.u64;
    if (size > r->field->max || size > INT64_MAX) return over_limit(r);
    *out = negative ? -(int64_t)size : (int64_t)size;
    return LUNA_OK;
}

static luna_err read_float(const reader *r, const msgpack_object *value, double *out)
{
    switch (value->type) {
        case MSGPACK_OBJECT_FLOAT32:
        case MSGPACK_OBJECT_FLOAT64:
            if (!isfinite(value->via.f64)) return wrong(r, "must be a finite number");
            *out = value->via.f64;
            return LUNA_OK;
        case MSGPACK_OBJECT_POSITIVE_INTEGER:
            *out = (double)value->via.u64;
            return LUNA_OK;
        case MSGPACK_OBJECT_NEGATIVE_INTEGER:
            *out = (double)value->via.i64;
            return LUNA_OK;
        default:
            return wrong(r, "must be a number");
    }
}

static luna_err read_bool(const reader *r, const msgpack_object *value, bool *out)
{
    if (value->type != MSGPACK_OBJECT_BOOLEAN) return wrong(r, "must be true or false");
    *out = value->via.boolean;
    return LUNA_OK;
}

static luna_err read_text(const reader *r, const msgpack_object *value, luna_text *out)
{
    if (value->type != MSGPACK_OBJECT_STR) return wrong(r, "must be a text");
    if (value->via.str.size > r->field->max) return over_limit(r);
    if (memchr(value->via.str.ptr, 0, value->via.str.size))
        return wrong(r, "holds a NUL character");
    if (!luna_utf8_valid(value->via.str.ptr, value->via.str.size))
        return wrong(r, "is not UTF-8");
    *out = (luna_text){.data = value->via.str.ptr, .len = value->via.str.size};
    return LUNA_OK;
}

static luna_err read_blob(const reader *r, const msgpack_object *value, luna_blob *out)
{
    if (value->type == MSGPACK_OBJECT_BIN)
        *out = (luna_blob){.data = value->via.bin.ptr, .len = value->via.bin.size};
    else if (value->type == MSGPACK_OBJECT_STR)
        *out = (luna_blob){.data = value->via.str.ptr, .len = value->via.str.size};
    else
        return wrong(r, "must be bytes");
    return out->len > r->field->max ? over_limit(r) : LUNA_OK;
}

static luna_err read_id(const reader *r, const msgpack_object *value, luna_id *out)
{
    if (value->type != MSGPACK_OBJECT_BIN || value->via.bin.size != LUNA_ID_BYTES)
        return wrong(r, "must be 16 bytes");
    memcpy(out->byte, value->via.bin.ptr, LUNA_ID_BYTES);
    if (r->field->required && luna_id_is_nil(out)) return wrong(r, "must not be nil");
    return LUNA_OK;
}

static luna_err read_dims(const reader *r, const msgpack_object *value, luna_dims *out)
{
    if (value->type != MSGPACK_OBJECT_ARRAY)
        return wrong(r, "must be an array of integers");
    if (value->via.array.size > LUNA_MAX_DIMS) return wrong(r, "has too many dimensions");
    for (uint32_t i = 0; i < value->via.array.size; i++)
        LUNA_TRY(read_uint(r, &value->via.array.ptr[i], &out->at[i]));
    out->count = value->via.array.size;
    return LUNA_OK;
}

static luna_err take_list(const reader *r, size_t count, size_t size, void **items)
{
    if (count > r->field->max) return over_limit(r);
    *items = luna_arena_alloc(r->lists, count, size);
    return *items ? LUNA_OK
                  : luna_error(LUNA_NO_MEMORY, "no memory for %zu items of '%s'", count,
                               r->field->key);
}

static void set_list(void *at, const void *items, size_t count)
{
    const struct {
        const void *items;
        size_t count;
    } view = {items, count};
    memcpy(at, &view, sizeof view);
}

static luna_err read_pairs(const reader *r, const msgpack_object *value, void *at)
{
    if (value->type != MSGPACK_OBJECT_MAP)
        return wrong(r, "must be a map of texts to bytes");
    const msgpack_object_map *map = &value->via.map;
    void *items;
    LUNA_TRY(take_list(r, map->size, sizeof(luna_pair), &items));
    luna_pair *pairs = items;
    static const luna_field limit = {.key = "extra", .max = LUNA_MAX_JSON_BYTES};
    const reader inner = {.lists = r->lists, .field = &limit};
    for (uint32_t i = 0; i < map->size; i++) {
        LUNA_TRY(read_text(&inner, &map->ptr[i].key, &pairs[i].key));
        LUNA_TRY(read_blob(&inner, &map->ptr[i].val, &pairs[i].value));
    }
    set_list(at, items, map->size);
    return LUNA_OK;
}

static luna_err read_fields(luna_arena *lists, const luna_schema *schema,
                            const msgpack_object *value, void *out);

static luna_err read_list(const reader *r, const msgpack_object *value, void *at)
{
    if (value->type != MSGPACK_OBJECT_ARRAY) return wrong(r, "must be an array of maps");
    const luna_schema *sub = r->field->sub;
    const uint32_t count = value->via.array.size;
    void *items;
    LUNA_TRY(take_list(r, count, sub->size, &items));
    for (uint32_t i = 0; i < count; i++)
        LUNA_TRY(read_fields(r->lists, sub, &value->via.array.ptr[i],
                             (char *)items + i * sub->size));
    set_list(at, items, count);
    return LUNA_OK;
}

static luna_err read_map(const reader *r, const msgpack_object *value, void *at)
{
    void *item;
    LUNA_TRY(take_list(r, 1, r->field->sub->size, &item));
    LUNA_TRY(read_fields(r->lists, r->field->sub, value, item));
    memcpy(at, &item, sizeof item);
    return LUNA_OK;
}

static luna_err read_value(const reader *r, const msgpack_object *value, void *at)
{
    switch (r->field->kind) {
        case LUNA_KIND_UINT:
            return read_uint(r, value, at);
        case LUNA_KIND_INT:
            return read_int(r, value, at);
        case LUNA_KIND_FLOAT:
            return read_float(r, value, at);
        case LUNA_KIND_BOOL:
            return read_bool(r, value, at);
        case LUNA_KIND_TEXT:
            return read_text(r, value, at);
        case LUNA_KIND_BYTES:
            return read_blob(r, value, at);
        case LUNA_KIND_ID:
            return read_id(r, value, at);
        case LUNA_KIND_DIMS:
            return read_dims(r, value, at);
        case LUNA_KIND_PAIRS:
            return read_pairs(r, value, at);
        case LUNA_KIND_LIST:
            return read_list(r, value, at);
        case LUNA_KIND_MAP:
            return read_map(r, value, at);
    }
    return LUNA_INTERNAL;
}

static void set_default(const luna_field *field, void *at)
{
    if (field->kind == LUNA_KIND_UINT) *(uint64_t *)at = field->fallback;
    if (field->kind == LUNA_KIND_BOOL) *(bool *)at = field->fallback != 0;
}

//  Depth is the schema's, never the input's. `out` is zeroed memory.
static luna_err read_fields(luna_arena *lists, const luna_schema *schema,
                            const msgpack_object *value, void *out)
{
    if (value->type != MSGPACK_OBJECT_MAP)
        return luna_error(LUNA_BAD_REQUEST, "'%s' must be a map", schema->name);
    for (size_t i = 0; i < schema->count; i++) {
        const luna_field *field = &schema->fields[i];
        void *at = (char *)out + field->offset;
        const msgpack_object *found = find(&value->via.map, field->key);
        if (!found && field->required)
            return luna_error(LUNA_BAD_REQUEST, "the field '%s' of '%s' is missing",
                              field->key, schema->name);
        if (!found)
            set_default(field, at);
        else
            LUNA_TRY(read_value(&(reader){.lists = lists, .field = field}, found, at));
    }
    return LUNA_OK;
}

static luna_err read_envelope(luna_packet *packet)
{
    if (packet->root.type != MSGPACK_OBJECT_MAP)
        return luna_error(LUNA_PROTOCOL, "the message is not a msgpack map");
    const msgpack_object *version = find(&packet->root.via.map, "luna");
    const msgpack_object *type = find(&packet->root.via.map, "type");
    if (!version || version->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return luna_error(LUNA_PROTOCOL, "the message has no 'luna' version");
    if (version->via.u64 != LUNA_WIRE_VERSION)
        return luna_error(LUNA_UNSUPPORTED, "wire version %llu; this side speaks %d",
                          (unsigned long long)version->via.u64, LUNA_WIRE_VERSION);
    if (!type || type->type != MSGPACK_OBJECT_STR)
        return luna_error(LUNA_PROTOCOL, "the message has no 'type'");
    const luna_text name = {.data = type->via.str.ptr, .len = type->via.str.size};
    for (int i = 0; i < LUNA_MSG_COUNT; i++) {
        packet->type = (luna_msg_type)i;
        if (luna_text_is(name, luna_msg_schema(packet->type)->name)) return LUNA_OK;
    }
    return luna_error(LUNA_PROTOCOL, "unknown message type '%.*s'",
                      (int)(name.len < 40 ? name.len : 40), name.data);
}

luna_err luna_packet_open(const void *data, size_t len, luna_packet **out)
{
    LUNA_TRY(luna_scan(data, len));
    luna_packet *packet = calloc(1, sizeof *packet);
    if (!packet || !msgpack_zone_init(&packet->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
        free(packet);
        return luna_error(LUNA_NO_MEMORY, "no memory to read a message of %zu bytes",
                          len);
    }
    size_t offset = 0;
    const msgpack_unpack_return rc =
        msgpack_unpack(data, len, &offset, &packet->zone, &packet->root);
    luna_err err = rc == MSGPACK_UNPACK_SUCCESS
                       ? read_envelope(packet)
                       : luna_error(LUNA_PROTOCOL, "the message cannot be unpacked");
    if (err == LUNA_OK)
        *out = packet;
    else
        luna_packet_close(&packet);
    return err;
}

bool luna_packet_peek_id(const void *data, size_t len, const char *key, luna_id *out)
{
    msgpack_zone zone;
    msgpack_object root;
    size_t offset = 0;
    if (luna_scan(data, len) != LUNA_OK) return false;
    if (!msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE)) return false;
    const bool map =
        msgpack_unpack(data, len, &offset, &zone, &root) == MSGPACK_UNPACK_SUCCESS &&
        root.type == MSGPACK_OBJECT_MAP;
    const msgpack_object *id = map ? find(&root.via.map, key) : NULL;
    const bool good =
        id && id->type == MSGPACK_OBJECT_BIN && id->via.bin.size == LUNA_ID_BYTES;
    if (good) memcpy(out->byte, id->via.bin.ptr, LUNA_ID_BYTES);
    msgpack_zone_destroy(&zone);
    return good;
}

luna_msg_type luna_packet_type(const luna_packet *packet)
{
    return packet->type;
}

luna_err luna_packet_read(luna_packet *packet, void *out)
{
    const luna_schema *schema = luna_msg_schema(packet->type);
    void *filled = luna_arena_alloc(&packet->lists, 1, schema->size);
    if (!filled) return luna_error(LUNA_NO_MEMORY, "no memory for a %s", schema->name);
    LUNA_TRY(read_fields(&packet->lists, schema, &packet->root, filled));
    memcpy(out, filled, schema->size);
    return LUNA_OK;
}

void luna_packet_close(luna_packet **packet)
{
    if (!*packet) return;
    luna_arena_free(&(*packet)->lists);
    msgpack_zone_destroy(&(*packet)->zone);
    free(*packet);
    *packet = NULL;
}
