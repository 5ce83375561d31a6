#include "decoder/image/avif_items.h"

#include "decoder/image/avif_table.h"

#include <string.h>

#define EXIF_START 4  //  the TIFF block's offset behind this number, which is 0
#define TYPE_EXIF  "Exif"
#define TYPE_MIME  "mime"
#define XMP_MIME   "application/rdf+xml"

//  What is changed, and where the new items' bytes go.
typedef struct avif {
    luna_avif_table old;
    uint32_t last_id;
    const luna_bytes *exif, *xmp;
    size_t delta;  //  by how much what follows `meta` moves
    size_t at;     //  of the first new item's bytes in the new file
} avif;

//  Pieces are in the file, before or behind `meta`, or in `meta`, which moves with it.
static luna_err check_extent(void *arg, const luna_avif_location *l, luna_avif_extent e,
                             bool first)
{
    avif *a = arg;
    (void)first;
    const size_t meta_end = a->old.meta.at + a->old.meta.whole;
    if (l->reference != 0 || l->method > LUNA_AVIF_IN_META)
        return luna_avif_unsound("a picture elsewhere");
    if (l->id > a->last_id) a->last_id = l->id;
    if (e.len == 0 || e.at > a->old.len || e.len > a->old.len - e.at)
        return luna_avif_unsound("a piece that is cut off");
    if (l->method == LUNA_AVIF_IN_META || e.at >= meta_end ||
        e.at + e.len <= a->old.meta.at)
        return LUNA_OK;
    return luna_avif_unsound("a piece inside its table");
}

typedef struct found {
    uint32_t id;
    luna_avif_extent at;
} found;

static luna_err note_extent(void *arg, const luna_avif_location *l, luna_avif_extent e,
                            bool first)
{
    found *f = arg;
    if (l->id == f->id && l->method == LUNA_AVIF_IN_FILE && first) f->at = e;
    return LUNA_OK;
}

//  ---- writing ---------------------------------------------------------------------

static size_t blocks_of(const avif *a)
{
    return (a->exif->len > 0) + (size_t)(a->xmp->len > 0);
}

typedef struct relocation {
    const avif *a;
    luna_bytes *out;
    size_t counted;  //  where the count of the item's extents stands
} relocation;

static void count_extent(relocation *r)
{
    uint8_t *at = r->out->data + r->counted;
    const uint32_t count = luna_read_be16(at) + 1;
    at[0] = (uint8_t)(count >> 8);
    at[1] = (uint8_t)count;
}

static void put_location(luna_bytes *out, const avif *a, uint32_t id, uint32_t method)
{
    luna_bytes_be16(out, id);
    if (a->old.iloc.data[0] == 1) luna_bytes_be16(out, method);
    luna_bytes_be16(out, 0);
}

static luna_err move_extent(void *arg, const luna_avif_location *l, luna_avif_extent e,
                            bool first)
{
    relocation *r = arg;
    const bool behind = l->method == LUNA_AVIF_IN_FILE && e.at >= r->a->old.meta.at;
    if (first) {
        put_location(r->out, r->a, l->id, l->method);
        r->counted = r->out->len;
        luna_bytes_be16(r->out, 0);
    }
    if (r->out->failed) return luna_bytes_end(r->out, "an AVIF file");
    count_extent(r);
    luna_bytes_be32(r->out, (uint32_t)(e.at + (behind ? r->a->delta : 0)));
    luna_bytes_be32(r->out, (uint32_t)e.len);
    return LUNA_OK;
}

static void put_new_location(luna_bytes *out, const avif *a, uint32_t id, size_t at,
                             size_t len)
{
    put_location(out, a, id, LUNA_AVIF_IN_FILE);
    luna_bytes_be16(out, 1);
    luna_bytes_be32(out, (uint32_t)at);
    luna_bytes_be32(out, (uint32_t)len);
}

//  Offsets and lengths of four bytes, no base.
static luna_err put_locations(luna_bytes *out, const avif *a)
{
    luna_bytes box = {0};
    relocation r = {.a = a, .out = &box};
    const size_t exif = a->exif->len ? EXIF_START + a->exif->len : 0;
    const uint8_t *count = a->old.iloc.data + LUNA_ISO_VERSION_BYTES + 2;
    luna_bytes_put(&box, a->old.iloc.data, LUNA_ISO_VERSION_BYTES);
    luna_bytes_be16(&box, 0x4400);
    luna_bytes_be16(&box, luna_read_be16(count) + (uint32_t)blocks_of(a));
    luna_err err = luna_avif_each_extent(&a->old, move_extent, &r);
    if (exif) put_new_location(&box, a, a->last_id + 1, a->at, exif);
    if (a->xmp->len) put_new_location(&box, a, a->last_id + 2, a->at + exif, a->xmp->len);
    if (err == LUNA_OK) err = luna_bytes_end(&box, "an AVIF file");
    if (err == LUNA_OK) luna_iso_put(out, "iloc", box.data, box.len);
    luna_bytes_free(&box);
    return err;
}

//  Version 2: number, no protection, type, no name; the kind of a mime one.
static void put_entry(luna_bytes *out, uint32_t id, const char *type, const char *mime)
{
    const size_t kind = mime ? strlen(mime) + 1 : 0;
    luna_iso_head(out, "infe", LUNA_ISO_VERSION_BYTES + 9 + kind);
    luna_bytes_be32(out, 2u << 24);
    luna_bytes_be16(out, id);
    luna_bytes_be16(out, 0);
    luna_bytes_put(out, type, 4);
    luna_bytes_put(out, "", 1);
    luna_bytes_put(out, mime, kind);
}

static void put_items(luna_bytes *out, const avif *a)
{
    luna_bytes added = {0};
    const uint8_t *old = a->old.iinf.data + LUNA_ISO_VERSION_BYTES + 2;
    const size_t old_len = a->old.iinf.len - LUNA_ISO_VERSION_BYTES - 2;
    if (a->exif->len) put_entry(&added, a->last_id + 1, TYPE_EXIF, NULL);
    if (a->xmp->len) put_entry(&added, a->last_id + 2, TYPE_MIME, XMP_MIME);
    luna_iso_head(out, "iinf", a->old.iinf.len + added.len);
    luna_bytes_put(out, a->old.iinf.data, LUNA_ISO_VERSION_BYTES);
    luna_bytes_be16(out, luna_read_be16(old - 2) + (uint32_t)blocks_of(a));
    luna_bytes_put(out, old, old_len);
    luna_bytes_put(out, added.data, added.len);
    out->failed = out->failed || added.failed;
    luna_bytes_free(&added);
}

static void put_describes(luna_bytes *out, uint32_t from, uint32_t to)
{
    luna_iso_head(out, "cdsc", 6);
    luna_bytes_be16(out, from);
    luna_bytes_be16(out, 1);
    luna_bytes_be16(out, to);
}

static void put_references(luna_bytes *out, const avif *a)
{
    const size_t each = 8 + 6;  //  bytes of a reference's box
    const size_t old = a->old.iref.whole ? a->old.iref.len : LUNA_ISO_VERSION_BYTES;
    luna_iso_head(out, "iref", old + each * blocks_of(a));
    if (a->old.iref.whole)
        luna_bytes_put(out, a->old.iref.data, a->old.iref.len);
    else
        luna_bytes_be32(out, 0);
    if (a->exif->len) put_describes(out, a->last_id + 1, a->old.primary);
    if (a->xmp->len) put_describes(out, a->last_id + 2, a->old.primary);
}

static luna_err put_children(luna_bytes *out, const avif *a)
{
    luna_iso_walker walker = luna_avif_inside(&a->old.meta);
    luna_iso_box box;
    luna_err err;
    while ((err = luna_iso_next(&walker, &box)) == LUNA_OK) {
        const bool last = strcmp(box.type, "iinf") == 0;
        if (strcmp(box.type, "iloc") == 0)
            LUNA_TRY(put_locations(out, a));
        else if (last)
            put_items(out, a);
        else if (strcmp(box.type, "iref") == 0)
            put_references(out, a);
        else
            luna_iso_put(out, box.type, box.data, box.len);
        if (last && a->old.iref.whole == 0) put_references(out, a);
    }
    return err == LUNA_NOT_FOUND ? LUNA_OK : err;
}

static luna_err put_meta(luna_bytes *out, const avif *a)
{
    luna_bytes children = {0};
    luna_err err = put_children(&children, a);
    if (err == LUNA_OK) err = luna_bytes_end(&children, "an AVIF file");
    if (err == LUNA_OK) {
        luna_iso_head(out, "meta", LUNA_ISO_VERSION_BYTES + children.len);
        luna_bytes_put(out, a->old.meta.data, LUNA_ISO_VERSION_BYTES);
        luna_bytes_put(out, children.data, children.len);
    }
    luna_bytes_free(&children);
    return err;
}

//  The table is written twice: its length tells where everything else will be.
static luna_err place_items(avif *a)
{
    luna_bytes trial = {0};
    luna_err err = put_meta(&trial, a);
    if (err == LUNA_OK) err = luna_bytes_end(&trial, "an AVIF file");
    a->delta = trial.len - a->old.meta.whole;
    a->at = a->old.len + a->delta + 8;
    luna_bytes_free(&trial);
    return err;
}

static luna_err put_file(luna_bytes *out, const avif *a)
{
    const size_t meta_end = a->old.meta.at + a->old.meta.whole;
    const size_t exif = a->exif->len ? EXIF_START + a->exif->len : 0;
    luna_bytes_put(out, a->old.file, a->old.meta.at);
    LUNA_TRY(put_meta(out, a));
    luna_bytes_put(out, a->old.file + meta_end, a->old.len - meta_end);
    luna_iso_head(out, "mdat", exif + a->xmp->len);
    if (exif) luna_bytes_be32(out, 0);
    luna_bytes_put(out, a->exif->data, a->exif->len);
    luna_bytes_put(out, a->xmp->data, a->xmp->len);
    return luna_bytes_end(out, "an AVIF file");
}

static luna_err check_new(avif *a)
{
    uint32_t exif, xmp;
    LUNA_TRY(luna_avif_find_item(&a->old, TYPE_EXIF, &exif));
    LUNA_TRY(luna_avif_find_item(&a->old, TYPE_MIME, &xmp));
    if (exif || xmp) return luna_avif_unsound("texts already");
    LUNA_TRY(luna_avif_each_extent(&a->old, check_extent, a));
    return a->last_id < 0xFFF0 ? LUNA_OK : luna_avif_unsound("too many items");
}

//  Of the last box: it may have left its length out, which a box behind it does not
//  allow.
static luna_err check_end(const avif *a)
{
    luna_iso_walker walker = {.from = a->old.file, .len = a->old.len};
    luna_iso_box box = {0};
    luna_err err;
    while ((err = luna_iso_next(&walker, &box)) == LUNA_OK)
        if (luna_read_be32(a->old.file + box.at) == 0)
            return luna_avif_unsound("a box without a length");
    return err == LUNA_NOT_FOUND ? LUNA_OK : err;
}

luna_err luna_avif_add(const void *file, size_t len, const luna_bytes *exif,
                       const luna_bytes *xmp, uint8_t **out, size_t *out_len)
{
    avif a = {.exif = exif, .xmp = xmp};
    luna_bytes made = {0};
    if (exif->len > UINT32_MAX / 4 || xmp->len > UINT32_MAX / 4 || len > UINT32_MAX / 4)
        return luna_error(LUNA_TOO_LARGE, "an AVIF file takes 4 GiB");
    LUNA_TRY(luna_avif_open(file, len, &a.old));
    LUNA_TRY(check_new(&a));
    LUNA_TRY(check_end(&a));
    if (blocks_of(&a) > 0) LUNA_TRY(place_items(&a));
    luna_bytes_reserve(&made, len + a.delta + exif->len + xmp->len + 16);
    luna_err err = LUNA_OK;
    if (blocks_of(&a) > 0)
        err = put_file(&made, &a);
    else
        luna_bytes_put(&made, file, len);
    if (err == LUNA_OK) err = luna_bytes_end(&made, "an AVIF file");
    if (err != LUNA_OK) {
        luna_bytes_free(&made);
        return err;
    }
    *out = made.data;
    *out_len = made.len;
    return LUNA_OK;
}

luna_err luna_avif_find(const void *file, size_t len, bool xmp, const uint8_t **out,
                        size_t *out_len)
{
    luna_avif_table a;
    const size_t start = xmp ? 0 : EXIF_START;
    found f = {0};
    LUNA_TRY(luna_avif_open(file, len, &a));
    LUNA_TRY(luna_avif_find_item(&a, xmp ? TYPE_MIME : TYPE_EXIF, &f.id));
    if (f.id == 0) return luna_error(LUNA_NOT_FOUND, "the AVIF has no such item");
    LUNA_TRY(luna_avif_each_extent(&a, note_extent, &f));
    if (f.at.len < start || f.at.at > len || f.at.len > len - f.at.at)
        return luna_avif_unsound("an item that is cut off");
    *out = a.file + f.at.at + start;
    *out_len = (size_t)f.at.len - start;
    return LUNA_OK;
}
