#include "decoder/image/embed.h"

#include "decoder/image/exif.h"
#include "decoder/image/jpeg_segments.h"
#include "decoder/image/png_chunks.h"
#include "decoder/image/webp_chunks.h"
#include "decoder/image/xmp.h"

#include <stdlib.h>
#include <string.h>

#define TAG_MODEL   0x0110
#define TAG_MAKE    0x010F
#define TAG_FURTHER 0x010D  //  and 0x010E: the last tags below Make that are texts
#define TAG_COMMENT 0x9286
#define TAG_PRIVATE 0xFE80       //  up to 0xFFFF, LUNA_EMBED_TEXTS_MAX of them
#define COPY_CODING "ASCII\0\0"  //  and its NUL: 8 bytes
#define COPY_HEAD   "{\"prompt\":"

//  How much of the EXIF block a JPEG is left with.
typedef enum exif_step {
    EXIF_ALL,
    EXIF_NO_COPY,
    EXIF_NO_PROMPT,
    EXIF_NO_WORKFLOW,
    EXIF_NEITHER,
    EXIF_PARAMETERS,
    EXIF_NOTHING
} exif_step;

//  Where each text goes.
typedef struct plan {
    const luna_image_text *texts;
    size_t count;
    bool exif[LUNA_EMBED_TEXTS_MAX];
    bool xmp[LUNA_EMBED_TEXTS_MAX];
    luna_exif_entry entries[LUNA_EMBED_TEXTS_MAX + 1];
    luna_exif block;
    luna_bytes copy;  //  the prompt as Diffusion Toolkit wants it in a JPEG
} plan;

static bool is(const luna_image_text *text, const char *keyword)
{
    return strcmp(text->keyword, keyword) == 0;
}

static void choose_places(plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        p->xmp[i] = p->texts[i].kind == LUNA_TEXT_NOTE && luna_xmp_can_hold(&p->texts[i]);
        p->exif[i] = !p->xmp[i];
    }
}

//  ---- EXIF -----------------------------------------------------------------------

static bool stays(const luna_image_text *text, exif_step step)
{
    if (step == EXIF_NOTHING) return false;
    if (text->kind == LUNA_TEXT_PARAMETERS) return true;
    if (step == EXIF_PARAMETERS) return false;
    if (is(text, "prompt")) return step < EXIF_NO_PROMPT || step == EXIF_NO_WORKFLOW;
    if (is(text, "workflow")) return step < EXIF_NO_WORKFLOW;
    return true;
}

static uint16_t tag_of(const luna_image_text *text, uint16_t *further, uint16_t *private)
{
    if (is(text, "prompt")) return TAG_MODEL;
    if (is(text, "workflow")) return TAG_MAKE;
    const bool below = text->kind == LUNA_TEXT_GRAPH && *further >= TAG_FURTHER;
    return below ? (*further)-- : (*private)++;
}

static int by_tag(const void *a, const void *b)
{
    const luna_exif_entry *left = a, *right = b;
    return left->tag - right->tag;
}

static void fill_block(plan *p, exif_step step)
{
    uint16_t further = TAG_MAKE - 1, private = TAG_PRIVATE;
    p->block = (luna_exif){.entries = p->entries};
    for (size_t i = 0; i < p->count; i++) {
        const luna_image_text *t = &p->texts[i];
        if (!p->exif[i] || !stays(t, step)) continue;
        if (t->kind == LUNA_TEXT_PARAMETERS) {
            p->block.comment = t->text;
            p->block.comment_len = t->len;
            continue;
        }
        p->entries[p->block.count++] =
            (luna_exif_entry){.tag = tag_of(t, &further, &private),
                              .keyword = t->keyword,
                              .text = t->text,
                              .len = t->len};
    }
    if (p->copy.len > 0 && step == EXIF_ALL)
        p->entries[p->block.count++] =
            (luna_exif_entry){.tag = TAG_COMMENT,
                              .coded = p->copy.data[0] == COPY_CODING[0],
                              .text = (const char *)p->copy.data,
                              .len = p->copy.len};
    qsort(p->entries, p->block.count, sizeof p->entries[0], by_tag);
}

static void fit_block(plan *p, size_t most, bool *left_out)
{
    exif_step step = EXIF_ALL;
    fill_block(p, step);
    while (luna_exif_bytes(&p->block) > most && step < EXIF_NOTHING)
        fill_block(p, ++step);
    for (size_t i = 0; i < p->count; i++)
        if (p->exif[i]) left_out[i] = !stays(&p->texts[i], step);
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] > 0x7F) return false;
    return true;
}

//  The standard has no name for UTF-8; Diffusion Toolkit takes a comment without one.
static void make_copy(plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const luna_image_text *t = &p->texts[i];
        if (!is(t, "prompt")) continue;
        if (is_ascii(t->text, t->len))
            luna_bytes_put(&p->copy, COPY_CODING, sizeof COPY_CODING);
        luna_bytes_text(&p->copy, COPY_HEAD);
        luna_bytes_put(&p->copy, t->text, t->len);
        luna_bytes_text(&p->copy, "}");
    }
}

//  ---- XMP ------------------------------------------------------------------------

//  Which texts go before others, whatever their length.
static int dispensable(const luna_image_text *text)
{
    if (is(text, LUNA_TEXT_HEATMAPS)) return 2;
    return is(text, "generation_metadata") ? 1 : 0;
}

static bool goes_before(const luna_image_text *a, const luna_image_text *b)
{
    const int first = dispensable(a), second = dispensable(b);
    return first != second ? first > second : a->len > b->len;
}

//  The next one to leave out; `count` when there is none.
static size_t next_victim(const plan *p)
{
    size_t next = p->count;
    for (size_t i = 0; i < p->count; i++) {
        if (!p->xmp[i]) continue;
        if (next == p->count || goes_before(&p->texts[i], &p->texts[next])) next = i;
    }
    return next;
}

static void fit_packet(plan *p, size_t most, bool *left_out)
{
    size_t total = luna_xmp_frame_bytes(), victim;
    for (size_t i = 0; i < p->count; i++)
        if (p->xmp[i]) total += luna_xmp_text_bytes(&p->texts[i]);
    while (total > most && (victim = next_victim(p)) < p->count) {
        p->xmp[victim] = false;
        left_out[victim] = true;
        total -= luna_xmp_text_bytes(&p->texts[victim]);
    }
}

//  ---- the whole ------------------------------------------------------------------

static luna_err make_blocks(const plan *p, luna_bytes *exif, luna_bytes *xmp)
{
    bool any = false;
    for (size_t i = 0; i < p->count; i++) any = any || p->xmp[i];
    if (p->block.count > 0 || p->block.comment) luna_exif_write(&p->block, exif);
    if (any) luna_xmp_write(p->texts, p->xmp, p->count, xmp);
    LUNA_TRY(luna_bytes_end(exif, "a picture's EXIF"));
    return luna_bytes_end(xmp, "a picture's XMP");
}

static luna_err add_blocks(const plan *p, luna_format format, const uint8_t *file,
                           size_t len, luna_bytes *out)
{
    luna_bytes exif = {0}, xmp = {0};
    luna_err err = make_blocks(p, &exif, &xmp);
    if (err == LUNA_OK)
        err = format == LUNA_FORMAT_JPEG
                  ? luna_jpeg_add(file, len, &exif, &xmp, &out->data, &out->len)
                  : luna_webp_add(file, len, &exif, &xmp, &out->data, &out->len);
    luna_bytes_free(&exif);
    luna_bytes_free(&xmp);
    return err;
}

static luna_err embed_blocks(luna_format format, const luna_image_text *texts,
                             size_t count, const uint8_t *file, size_t len,
                             bool *left_out, luna_bytes *out)
{
    const bool jpeg = format == LUNA_FORMAT_JPEG;
    LUNA_TRY(luna_png_check_texts(texts, count));
    plan *p = calloc(1, sizeof *p);
    if (!p) return luna_error(LUNA_NO_MEMORY, "no memory for an image's metadata");
    p->texts = texts;
    p->count = count;
    choose_places(p);
    if (jpeg) make_copy(p);
    fit_block(p, jpeg ? LUNA_JPEG_EXIF_MAX : SIZE_MAX - 1, left_out);
    fit_packet(p, jpeg ? LUNA_JPEG_XMP_MAX : SIZE_MAX - 1, left_out);
    luna_err err = luna_bytes_end(&p->copy, "a picture's EXIF");
    if (err == LUNA_OK) err = add_blocks(p, format, file, len, out);
    luna_bytes_free(&p->copy);
    free(p);
    return err;
}

luna_err luna_image_embed(luna_format format, const luna_image_text *texts, size_t count,
                          uint8_t **file, size_t *len, bool *left_out)
{
    luna_bytes made = {0};
    if (count > LUNA_EMBED_TEXTS_MAX)
        return luna_error(LUNA_TOO_LARGE, "%zu texts; an image file takes %d", count,
                          LUNA_EMBED_TEXTS_MAX);
    for (size_t i = 0; i < count; i++) left_out[i] = false;
    LUNA_TRY(format == LUNA_FORMAT_PNG
                 ? luna_png_add_text(*file, *len, texts, count, &made.data, &made.len)
                 : embed_blocks(format, texts, count, *file, *len, left_out, &made));
    free(*file);
    *file = made.data;
    *len = made.len;
    return LUNA_OK;
}
