#include "decoder/image/avif_table.h"

#include <string.h>

luna_err luna_avif_unsound(const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "the AVIF has %s", what);
}

//  ---- numbers of any size ---------------------------------------------------------

typedef struct cursor {
    const uint8_t *at;
    size_t left;
    bool ended;  //  more was asked for than there was
} cursor;

static uint64_t take(cursor *from, size_t bytes)
{
    uint64_t value = 0;
    if (bytes > from->left) {
        from->ended = true;
        from->left = 0;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) value = value << 8 | from->at[i];
    from->at += bytes;
    from->left -= bytes;
    return value;
}

//  ---- the boxes -------------------------------------------------------------------

luna_iso_walker luna_avif_inside(const luna_iso_box *box)
{
    return (luna_iso_walker){.from = box->data + LUNA_ISO_VERSION_BYTES,
                             .len = box->len - LUNA_ISO_VERSION_BYTES};
}

//  A full box of `meta` whose version is at most `version`.
static luna_err find_full(const luna_avif_table *a, const char *type, uint8_t version,
                          luna_iso_box *out)
{
    if (luna_iso_find(luna_avif_inside(&a->meta), type, out) != LUNA_OK ||
        out->len < LUNA_ISO_VERSION_BYTES + 2 || out->data[0] > version)
        return luna_error(LUNA_BAD_REQUEST, "the AVIF has no sound %s box", type);
    return LUNA_OK;
}

static luna_err find_reference(luna_avif_table *a)
{
    const luna_err err = luna_iso_find(luna_avif_inside(&a->meta), "iref", &a->iref);
    if (err == LUNA_NOT_FOUND) a->iref = (luna_iso_box){0};
    if (err != LUNA_OK && err != LUNA_NOT_FOUND) return err;
    if (a->iref.whole == 0) return LUNA_OK;
    if (a->iref.len >= LUNA_ISO_VERSION_BYTES && a->iref.data[0] == 0) return LUNA_OK;
    return luna_avif_unsound("no sound iref box");
}

luna_err luna_avif_open(const void *file, size_t len, luna_avif_table *a)
{
    *a = (luna_avif_table){.file = file, .len = len};
    luna_iso_walker walker = {.from = file, .len = len};
    luna_iso_box box;
    if (luna_iso_next(&walker, &box) != LUNA_OK || strcmp(box.type, "ftyp") != 0 ||
        box.len < 8 || memcmp(box.data, "avif", 4) != 0)
        return luna_error(LUNA_BAD_REQUEST, "the file is no AVIF");
    LUNA_TRY(luna_iso_find(walker, "meta", &a->meta));
    if (a->meta.len < LUNA_ISO_VERSION_BYTES)
        return luna_avif_unsound("no sound meta box");
    LUNA_TRY(find_full(a, "pitm", 0, &box));
    a->primary = luna_read_be16(box.data + LUNA_ISO_VERSION_BYTES);
    LUNA_TRY(find_full(a, "iinf", 0, &a->iinf));
    LUNA_TRY(find_full(a, "iloc", 1, &a->iloc));
    return find_reference(a);
}

//  ---- which items there are -------------------------------------------------------

luna_err luna_avif_find_item(const luna_avif_table *a, const char *type, uint32_t *id)
{
    luna_iso_walker walker = {.from = a->iinf.data + LUNA_ISO_VERSION_BYTES + 2,
                              .len = a->iinf.len - LUNA_ISO_VERSION_BYTES - 2};
    luna_iso_box box;
    luna_err err;
    *id = 0;
    while ((err = luna_iso_next(&walker, &box)) == LUNA_OK) {
        if (strcmp(box.type, "infe") != 0 || box.len < 12 || box.data[0] != 2)
            return luna_avif_unsound("no sound infe box");
        if (*id == 0 && memcmp(box.data + 8, type, 4) == 0)
            *id = luna_read_be16(box.data + 4);
    }
    return err == LUNA_NOT_FOUND ? LUNA_OK : err;
}

//  ---- where they are --------------------------------------------------------------

typedef struct sizes {
    size_t offset, length, base, index;  //  bytes of these numbers
} sizes;

static bool read_sizes(cursor *from, uint8_t version, sizes *out)
{
    const uint64_t told = take(from, 2);
    *out = (sizes){.offset = told >> 12 & 15,
                   .length = told >> 8 & 15,
                   .base = told >> 4 & 15,
                   .index = version == 1 ? told & 15 : 0};
    return out->offset <= 8 && out->length <= 8 && out->base <= 8 && out->index <= 8;
}

static luna_avif_location take_location(cursor *from, uint8_t version, const sizes *of)
{
    luna_avif_location out = {.id = (uint32_t)take(from, 2)};
    if (version == 1) out.method = (uint32_t)take(from, 2) & 15;
    out.reference = (uint32_t)take(from, 2);
    out.base = take(from, of->base);
    out.extents = (uint32_t)take(from, 2);
    return out;
}

static luna_avif_extent take_extent(cursor *from, const luna_avif_location *l,
                                    const sizes *of)
{
    (void)take(from, of->index);
    const uint64_t offset = take(from, of->offset);
    return (luna_avif_extent){.at = l->base + offset, .len = take(from, of->length)};
}

luna_err luna_avif_each_extent(const luna_avif_table *a, luna_avif_visit *visit,
                               void *arg)
{
    const uint8_t version = a->iloc.data[0];
    cursor from = {.at = a->iloc.data + LUNA_ISO_VERSION_BYTES,
                   .left = a->iloc.len - LUNA_ISO_VERSION_BYTES};
    sizes of;
    if (!read_sizes(&from, version, &of)) return luna_avif_unsound("no sound iloc box");
    for (uint64_t items = take(&from, 2); items > 0 && !from.ended; items--) {
        const luna_avif_location l = take_location(&from, version, &of);
        for (uint32_t i = 0; i < l.extents && !from.ended; i++) {
            const luna_avif_extent e = take_extent(&from, &l, &of);
            if (!from.ended) LUNA_TRY(visit(arg, &l, e, i == 0));
        }
    }
    return from.ended ? luna_avif_unsound("no sound iloc box") : LUNA_OK;
}
