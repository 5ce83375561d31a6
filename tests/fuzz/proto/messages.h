//  messages.h - any message of the wire, and whether two are the same

#ifndef LUNA_TESTS_FUZZ_MESSAGES_H
#define LUNA_TESTS_FUZZ_MESSAGES_H

#include "fuzz/fuzz.h"
#include "proto/codec.h"
#include "proto/schema.h"

typedef union any_message {
#define X(symbol, name, type) type symbol;
    LUNA_MSG_TABLE(X)
#undef X
} any_message;

//  Every list is struct { const T *items; size_t count; }.
typedef struct any_list {
    const void *items;
    size_t count;
} any_list;

static inline any_list list_at(const void *at)
{
    any_list list;
    memcpy(&list, at, sizeof list);
    return list;
}

static inline bool same_bytes(luna_blob a, luna_blob b)
{
    if (!a.data != !b.data || a.len != b.len) return false;
    return a.len == 0 || memcmp(a.data, b.data, a.len) == 0;
}

static inline bool same_texts(luna_text a, luna_text b)
{
    return same_bytes((luna_blob){a.data, a.len}, (luna_blob){b.data, b.len});
}

static inline bool same_dims(const luna_dims *a, const luna_dims *b)
{
    return a->count == b->count && memcmp(a->at, b->at, a->count * sizeof *a->at) == 0;
}

//  A value of no bytes and none are one.
static inline bool same_pair(const luna_pair *a, const luna_pair *b)
{
    if (!same_texts(a->key, b->key) || a->value.len != b->value.len) return false;
    return a->value.len == 0 || memcmp(a->value.data, b->value.data, a->value.len) == 0;
}

static inline bool same_pairs(any_list a, any_list b)
{
    const luna_pair *x = a.items, *y = b.items;
    if (a.count != b.count) return false;
    for (size_t i = 0; i < a.count; i++)
        if (!same_pair(&x[i], &y[i])) return false;
    return true;
}

static bool same_fields(const luna_schema *schema, const void *a, const void *b);

static inline bool same_lists(const luna_schema *schema, any_list a, any_list b)
{
    if (a.count != b.count) return false;
    for (size_t i = 0; i < a.count; i++)
        if (!same_fields(schema, (const char *)a.items + i * schema->size,
                         (const char *)b.items + i * schema->size))
            return false;
    return true;
}

static inline bool same_maps(const luna_schema *schema, const void *a, const void *b)
{
    const void *x, *y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x && y ? same_fields(schema, x, y) : x == y;
}

static inline bool same_value(const luna_field *field, const void *a, const void *b)
{
    switch (field->kind) {
        case LUNA_KIND_UINT:
        case LUNA_KIND_INT:
            return memcmp(a, b, sizeof(uint64_t)) == 0;
        case LUNA_KIND_FLOAT:  //  0 and -0 are one default
            return !(*(const double *)a < *(const double *)b) &&
                   !(*(const double *)a > *(const double *)b);
        case LUNA_KIND_BOOL:
            return *(const bool *)a == *(const bool *)b;
        case LUNA_KIND_TEXT:
            return same_texts(*(const luna_text *)a, *(const luna_text *)b);
        case LUNA_KIND_BYTES:
            return same_bytes(*(const luna_blob *)a, *(const luna_blob *)b);
        case LUNA_KIND_ID:
            return luna_id_compare(a, b) == 0;
        case LUNA_KIND_DIMS:
            return same_dims(a, b);
        case LUNA_KIND_PAIRS:
            return same_pairs(list_at(a), list_at(b));
        case LUNA_KIND_LIST:
            return same_lists(field->sub, list_at(a), list_at(b));
        case LUNA_KIND_MAP:
            return same_maps(field->sub, a, b);
    }
    return false;
}

//  Depth is the schema's.
static bool same_fields(const luna_schema *schema, const void *a, const void *b)
{
    for (size_t i = 0; i < schema->count; i++) {
        const luna_field *field = &schema->fields[i];
        if (same_value(field, (const char *)a + field->offset,
                       (const char *)b + field->offset))
            continue;
        fprintf(stderr, "%s.%s differs\n", schema->name, field->key);
        return false;
    }
    return true;
}

//  What was encoded reads as the same message, and encodes to the same bytes again.
static inline void check_reads_back(luna_msg_type type, const void *message,
                                    const void *bytes, size_t len)
{
    luna_packet *packet = NULL;
    any_message back;
    CHECK(luna_packet_open(bytes, len, &packet) == LUNA_OK);
    CHECK(luna_packet_type(packet) == type);
    CHECK(luna_packet_read(packet, &back) == LUNA_OK);
    CHECK(same_fields(luna_msg_schema(type), message, &back));
    void *again = NULL;
    size_t again_len = 0;
    CHECK(luna_msg_pack(type, &back, &again, &again_len) == LUNA_OK);
    CHECK(again_len == len && memcmp(again, bytes, len) == 0);
    free(again);
    luna_packet_close(&packet);
}

//  A message that can be encoded: its size is known beforehand, a smaller room is
//  refused, and it reads back.
static inline void check_round_trip(luna_msg_type type, const void *message)
{
    void *bytes = NULL;
    size_t len = 0, used = 0;
    const size_t size = luna_msg_size(type, message);
    CHECK(luna_msg_pack(type, message, &bytes, &len) == LUNA_OK);
    CHECK(len == size);
    CHECK(luna_msg_encode(type, message, bytes, len - 1, &used) == LUNA_TOO_LARGE);
    CHECK(luna_msg_encode(type, message, bytes, len, &used) == LUNA_OK && used == len);
    check_reads_back(type, message, bytes, len);
    free(bytes);
}

#endif
