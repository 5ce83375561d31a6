#include "decoder/image/avif_items.h"

#include "decoder/image/iso_boxes.h"

#include <string.h>

#define VERSION_BYTES 4  //  of a full box: version and flags
#define EXIF_START    4  //  the TIFF block's offset behind this number, which is 0
#define IN_FILE       0  //  construction methods
#define IN_META       1
#define TYPE_EXIF     "Exif"
#define TYPE_MIME     "mime"
#define XMP_MIME      "application/rdf+xml"

//  The boxes that are changed, and where the new items' bytes go.
typedef struct avif {
    const uint8_t *file;
    size_t len;
    luna_iso_box meta, iloc, iinf, iref;  //  iref.whole is 0 when there is none
    uint32_t primary, last_id;
    const luna_bytes *exif, *xmp;
    size_t delta;  //  by how much what follows `meta` moves
    size_t at;     //  of the first new item's bytes in the new file
} avif;

static luna_err unsound(const char *what)
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

static luna_iso_walker inside(const luna_iso_box *box)
{
    return (luna_iso_walker){.from = box->data + VERSION_BYTES,
                             .len = box->len - VERSION_BYTES};
}

//  A full box of `meta` whose version is at most `version`.
static luna_err find_full(const avif *a, const char *type, uint8_t version,
                          luna_iso_box *out)
{
    if (luna_iso_find(inside(&a->meta), type, out) != LUNA_OK ||
        out->len < VERSION_BYTES + 2 || out->data[0] > version)
        return luna_error(LUNA_BAD_REQUEST, "the AVIF has no sound %s box", type);
    return LUNA_OK;
}

static luna_err find_reference(avif *a)
{
    const luna_err err = luna_iso_find(inside(&a->meta), "iref", &a->iref);
    if (err == LUNA_NOT_FOUND) a->iref = (luna_iso_box){0};
    if (err != LUNA_OK && err != LUNA_NOT_FOUND) return err;
    if (a->iref.whole == 0) return LUNA_OK;
    if (a->iref.len >= VERSION_BYTES && a->iref.data[0] == 0) return LUNA_OK;
    return unsound("no sound iref box");
}

static luna_err open_boxes(avif *a)
{
    luna_iso_walker walker = {.from = a->file, .len = a->len};
    luna_iso_box box;
    if (luna_iso_next(&walker, &box) != LUNA_OK || strcmp(box.type, "ftyp") != 0 ||
        box.len < 8 || memcmp(box.data, "avif", 4) != 0)
        return luna_error(LUNA_BAD_REQUEST, "the file is no AVIF");
    LUNA_TRY(luna_iso_find(walker, "meta", &a->meta));
    if (a->meta.len < VERSION_BYTES) return unsound("no sound meta box");
    LUNA_TRY(find_full(a, "pitm", 0, &box));
    a->primary = luna_read_be16(box.data + VERSION_BYTES);
    LUNA_TRY(find_full(a, "iinf", 0, &a->iinf));
    LUNA_TRY(find_full(a, "iloc", 1, &a->iloc));
    return find_reference(a);
}

//  ---- which items there are -------------------------------------------------------

//  The number of the first item of that type; 0 when there is none.
static luna_err find_item(const avif *a, const char *type, uint32_t *id)
{
    luna_iso_walker walker = {.from = a->iinf.data + VERSION_BYTES + 2,
                              .len = a->iinf.len - VERSION_BYTES - 2};
    luna_iso_box box;
    luna_err err;
    *id = 0;
    while ((err = luna_iso_next(&walker, &box)) == LUNA_OK) {
        if (strcmp(box.type, "infe") != 0 || box.len < 12 || box.data[0] != 2)
            return unsound("no sound infe box");
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

//  An item's place but for its extents, which follow.
typedef struct location {
    uint32_t id, method, reference, extents;
    uint64_t base;
} location;

static location take_location(cursor *from, uint8_t version, const sizes *of)
{
    location out = {.id = (uint32_t)take(from, 2)};
    if (version == 1) out.method = (uint32_t)take(from, 2) & 15;
    out.reference = (uint32_t)take(from, 2);
    out.base = take(from, of->base);
    out.extents = (uint32_t)take(from, 2);
    return out;
}

typedef struct extent {
    uint64_t at, len;
} extent;

static extent take_extent(cursor *from, const location *l, const sizes *of)
{
    (void)take(from, of->index);
    const uint64_t offset = take(from, of->offset);
    return (extent){.at = l->base + offset, .len = take(from, of->length)};
}

//  Calls for each extent; `first` is true for an item's first one, false from then on.
typedef luna_err extent_visit(void *arg, const location *of, extent e, bool first);

static luna_err each_extent(const avif *a, extent_visit *visit, void *arg)
{
    const uint8_t version = a->iloc.data[0];
    cursor from = {.at = a->iloc.data + VERSION_BYTES,
                   .left = a->iloc.len - VERSION_BYTES};
    sizes of;
    if (!read_sizes(&from, version, &of)) return unsound("no sound iloc box");
    for (uint64_t items = take(&from, 2); items > 0 && !from.ended; items--) {
        const location l = take_location(&from, version, &of);
        for (uint32_t i = 0; i < l.extents && !from.ended; i++) {
            const extent e = take_extent(&from, &l, &of);
            if (!from.ended) LUNA_TRY(visit(arg, &l, e, i == 0));
        }
    }
    return from.ended ? unsound("no sound iloc box") : LUNA_OK;
}

//  Pieces are in the file, before or behind `meta`, or in `meta`, which moves with it.
static luna_err check_extent(void *arg, const location *l, extent e, bool first)
{
    avif *a = arg;
    (void)first;
    const size_t meta_end = a->meta.at + a->meta.whole;
    if (l->reference != 0 || l->method > IN_META) return unsound("a picture elsewhere");
    if (l->id > a->last_id) a->last_id = l->id;
    if (e.len == 0 || e.at > a->len || e.len > a->len - e.at)
        return unsound("a piece that is cut off");
    if (l->method == IN_META || e.at >= meta_end || e.at + e.len <= a->meta.at)
        return LUNA_OK;
    return unsound("a piece inside its table");
}

typedef struct found {
    uint32_t id;
    extent at;
} found;

static luna_err note_extent(void *arg, const location *l, extent e, bool first)
{
    found *f = arg;
    if (l->id == f->id && l->method == IN_FILE && first) f->at = e;
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
    if (a->iloc.data[0] == 1) luna_bytes_be16(out, method);
    luna_bytes_be16(out, 0);
}

static luna_err move_extent(void *arg, const location *l, extent e, bool first)
{
    relocation *r = arg;
    const bool behind = l->method == IN_FILE && e.at >= r->a->meta.at;
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
    put_location(out, a, id, IN_FILE);
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
    const uint8_t *count = a->iloc.data + VERSION_BYTES + 2;
    luna_bytes_put(&box, a->iloc.data, VERSION_BYTES);
    luna_bytes_be16(&box, 0x4400);
    luna_bytes_be16(&box, luna_read_be16(count) + (uint32_t)blocks_of(a));
    luna_err err = each_extent(a, move_extent, &r);
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
    luna_iso_head(out, "infe", VERSION_BYTES + 9 + kind);
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
    const uint8_t *old = a->iinf.data + VERSION_BYTES + 2;
    const size_t old_len = a->iinf.len - VERSION_BYTES - 2;
    if (a->exif->len) put_entry(&added, a->last_id + 1, TYPE_EXIF, NULL);
    if (a->xmp->len) put_entry(&added, a->last_id + 2, TYPE_MIME, XMP_MIME);
    luna_iso_head(out, "iinf", a->iinf.len + added.len);
    luna_bytes_put(out, a->iinf.data, VERSION_BYTES);
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
    const size_t old = a->iref.whole ? a->iref.len : VERSION_BYTES;
    luna_iso_head(out, "iref", old + each * blocks_of(a));
    if (a->iref.whole)
        luna_bytes_put(out, a->iref.data, a->iref.len);
    else
        luna_bytes_be32(out, 0);
    if (a->exif->len) put_describes(out, a->last_id + 1, a->primary);
    if (a->xmp->len) put_describes(out, a->last_id + 2, a->primary);
}

static luna_err put_children(luna_bytes *out, const avif *a)
{
    luna_iso_walker walker = inside(&a->meta);
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
        if (last && a->iref.whole == 0) put_references(out, a);
    }
    return err == LUNA_NOT_FOUND ? LUNA_OK : err;
}

static luna_err put_meta(luna_bytes *out, const avif *a)
{
    luna_bytes children = {0};
    luna_err err = put_children(&children, a);
    if (err == LUNA_OK) err = luna_bytes_end(&children, "an AVIF file");
    if (err == LUNA_OK) {
        luna_iso_head(out, "meta", VERSION_BYTES + children.len);
        luna_bytes_put(out, a->meta.data, VERSION_BYTES);
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
    a->delta = trial.len - a->meta.whole;
    a->at = a->len + a->delta + 8;
    luna_bytes_free(&trial);
    return err;
}

static luna_err put_file(luna_bytes *out, const avif *a)
{
    const size_t meta_end = a->meta.at + a->meta.whole;
    const size_t exif = a->exif->len ? EXIF_START + a->exif->len : 0;
    luna_bytes_put(out, a->file, a->meta.at);
    LUNA_TRY(put_meta(out, a));
    luna_bytes_put(out, a->file + meta_end, a->len - meta_end);
    luna_iso_head(out, "mdat", exif + a->xmp->len);
    if (exif) luna_bytes_be32(out, 0);
    luna_bytes_put(out, a->exif->data, a->exif->len);
    luna_bytes_put(out, a->xmp->data, a->xmp->len);
    return luna_bytes_end(out, "an AVIF file");
}

static luna_err check_new(avif *a)
{
    uint32_t exif, xmp;
    LUNA_TRY(find_item(a, TYPE_EXIF, &exif));
    LUNA_TRY(find_item(a, TYPE_MIME, &xmp));
    if (exif || xmp) return unsound("texts already");
    LUNA_TRY(each_extent(a, check_extent, a));
    return a->last_id < 0xFFF0 ? LUNA_OK : unsound("too many items");
}

//  Of the last box: it may have left its length out, which a box behind it does not
//  allow.
static luna_err check_end(const avif *a)
{
    luna_iso_walker walker = {.from = a->file, .len = a->len};
    luna_iso_box box = {0};
    luna_err err;
    while ((err = luna_iso_next(&walker, &box)) == LUNA_OK)
        if (luna_read_be32(a->file + box.at) == 0)
            return unsound("a box without a length");
    return err == LUNA_NOT_FOUND ? LUNA_OK : err;
}

luna_err luna_avif_add(const void *file, size_t len, const luna_bytes *exif,
                       const luna_bytes *xmp, uint8_t **out, size_t *out_len)
{
    avif a = {.file = file, .len = len, .exif = exif, .xmp = xmp};
    luna_bytes made = {0};
    if (exif->len > UINT32_MAX / 4 || xmp->len > UINT32_MAX / 4 || len > UINT32_MAX / 4)
        return luna_error(LUNA_TOO_LARGE, "an AVIF file takes 4 GiB");
    LUNA_TRY(open_boxes(&a));
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
    avif a = {.file = file, .len = len};
    const size_t start = xmp ? 0 : EXIF_START;
    found f = {0};
    LUNA_TRY(open_boxes(&a));
    LUNA_TRY(find_item(&a, xmp ? TYPE_MIME : TYPE_EXIF, &f.id));
    if (f.id == 0) return luna_error(LUNA_NOT_FOUND, "the AVIF has no such item");
    LUNA_TRY(each_extent(&a, note_extent, &f));
    if (f.at.len < start || f.at.at > len || f.at.len > len - f.at.at)
        return unsound("an item that is cut off");
    *out = a.file + f.at.at + start;
    *out_len = (size_t)f.at.len - start;
    return LUNA_OK;
}
