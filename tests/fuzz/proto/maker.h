//  maker.h - a message of any type, made of the fuzzer's bytes
//
//  Field by field over the schema, within and beyond the limits. Ids and words come from
//  a pool when there is one, so that messages make sense to each other.

#ifndef LUNA_TESTS_FUZZ_MAKER_H
#define LUNA_TESTS_FUZZ_MAKER_H

#include "common/arena.h"
#include "fuzz/proto/messages.h"

enum { TEXT_BYTES = 40, ITEMS = 4 };

typedef struct maker {
    fuzz_bytes from;
    luna_arena memory;
    const luna_id *ids;  //  NULL: any bytes
    size_t id_count;
    const char *const *words;  //  NULL: none; texts are mostly of these
    size_t word_count;
} maker;

static inline uint64_t make_uint(maker *m)
{
    static const uint64_t corners[] = {
        0,    1,    4,    5,    9,       10,         90,        100,
        1000, 1440, 4095, 4096, 1 << 20, UINT32_MAX, INT64_MAX, UINT64_MAX};
    const uint64_t pick = fuzz_below(&m->from, 2 * sizeof corners / sizeof corners[0]);
    if (pick < sizeof corners / sizeof corners[0]) return corners[pick];
    return fuzz_uint(&m->from, 8);
}

static inline double make_float(maker *m)
{
    double value;
    const uint64_t bits = fuzz_uint(&m->from, 8);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void make_text(maker *m, uint64_t max, luna_text *out)
{
    const uint64_t word = m->words ? fuzz_below(&m->from, 256) : 255;
    if (word < 240) {
        *out = luna_text_of(m->words[word % m->word_count]);
        return;
    }
    *out = fuzz_text(&m->from, TEXT_BYTES);
    const uint64_t pick = fuzz_below(&m->from, 64);
    if (pick > 1 || max > 64) return;
    //  At its limit, and beyond it; the long ones would only cost time.
    const size_t len = (size_t)max + (pick == 1);
    char *text = luna_arena_alloc(&m->memory, len + 1, 1);
    CHECK(text);
    memset(text, 'a', len);
    *out = (luna_text){.data = text, .len = len};
}

static inline void make_id(maker *m, luna_id *out)
{
    const uint64_t pick = m->ids ? fuzz_below(&m->from, 256) : 255;
    if (pick < 240) {
        *out = m->ids[pick % m->id_count];
        return;
    }
    const luna_blob bytes = fuzz_blob(&m->from, LUNA_ID_BYTES);
    if (bytes.len) memcpy(out->byte, bytes.data, bytes.len);
}

static inline void make_dims(maker *m, luna_dims *out)
{
    out->count = (size_t)fuzz_below(&m->from, LUNA_MAX_DIMS + 1);
    for (size_t i = 0; i < out->count; i++) out->at[i] = make_uint(m);
}

static inline void set_list(void *at, const void *items, size_t count)
{
    memcpy(at, &(any_list){.items = items, .count = count}, sizeof(any_list));
}

static inline void make_pairs(maker *m, void *at)
{
    const size_t count = (size_t)fuzz_below(&m->from, ITEMS);
    luna_pair *pairs = luna_arena_alloc(&m->memory, count + 1, sizeof *pairs);
    CHECK(pairs);
    for (size_t i = 0; i < count; i++) {
        make_text(m, 32, &pairs[i].key);
        if (fuzz_bool(&m->from)) pairs[i].value = fuzz_blob(&m->from, TEXT_BYTES);
    }
    set_list(at, pairs, count);
}

static inline void make_fields(maker *m, const luna_schema *schema, void *out);

static inline void make_list(maker *m, const luna_field *field, void *at)
{
    const luna_schema *sub = field->sub;
    const size_t count = (size_t)fuzz_below(&m->from, ITEMS + (field->max < 8 ? 3 : 0));
    char *items = luna_arena_alloc(&m->memory, count + 1, sub->size);
    CHECK(items);
    for (size_t i = 0; i < count; i++) make_fields(m, sub, items + i * sub->size);
    set_list(at, items, count);
}

static inline void make_map(maker *m, const luna_schema *sub, void *at)
{
    void *item = luna_arena_alloc(&m->memory, 1, sub->size);
    CHECK(item);
    make_fields(m, sub, item);
    memcpy(at, &item, sizeof item);
}

static inline void make_value(maker *m, const luna_field *field, void *at)
{
    switch (field->kind) {
        case LUNA_KIND_UINT:
            *(uint64_t *)at = make_uint(m);
            break;
        case LUNA_KIND_INT:
            *(int64_t *)at = (int64_t)make_uint(m);
            break;
        case LUNA_KIND_FLOAT:
            *(double *)at = make_float(m);
            break;
        case LUNA_KIND_BOOL:
            *(bool *)at = fuzz_bool(&m->from);
            break;
        case LUNA_KIND_TEXT:
            make_text(m, field->max, at);
            break;
        case LUNA_KIND_BYTES:
            *(luna_blob *)at = fuzz_blob(&m->from, TEXT_BYTES);
            break;
        case LUNA_KIND_ID:
            make_id(m, at);
            break;
        case LUNA_KIND_DIMS:
            make_dims(m, at);
            break;
        case LUNA_KIND_PAIRS:
            make_pairs(m, at);
            break;
        case LUNA_KIND_LIST:
            make_list(m, field, at);
            break;
        case LUNA_KIND_MAP:
            make_map(m, field->sub, at);
            break;
    }
}

//  `out` is zeroed; required fields are mostly there, others half of the time.
static inline void make_fields(maker *m, const luna_schema *schema, void *out)
{
    for (size_t i = 0; i < schema->count; i++) {
        const luna_field *field = &schema->fields[i];
        const uint64_t pick = fuzz_below(&m->from, 32);
        if (field->required ? pick == 31 : pick >= 16) continue;
        make_value(m, field, (char *)out + field->offset);
    }
}

#endif
