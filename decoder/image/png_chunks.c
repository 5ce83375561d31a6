#include "decoder/image/png_chunks.h"

#include "common/utf8.h"

#include <libdeflate.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SIGNATURE_BYTES 8
#define FRAME_BYTES     12  //  length, type and CRC around the data
#define IHDR_BYTES      13
#define ITXT_EXTRA      4  //  method and flag, empty language, empty translated keyword

static const uint8_t signature[SIGNATURE_BYTES] = {0x89, 'P',  'N',  'G',
                                                   '\r', '\n', 0x1A, '\n'};

//  ---- reading ------------------------------------------------------------------

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

//  Over type and data, which follow each other.
static uint32_t chunk_crc(const uint8_t *type, size_t data_len)
{
    return libdeflate_crc32(0, type, 4 + data_len);
}

static luna_err unsound(size_t at, const char *why)
{
    return luna_error(LUNA_BAD_REQUEST, "the PNG is damaged at byte %zu: %s", at, why);
}

luna_err luna_png_walk(const void *file, size_t len, luna_png_walker *out)
{
    if (len < SIGNATURE_BYTES || memcmp(file, signature, SIGNATURE_BYTES) != 0)
        return luna_error(LUNA_BAD_REQUEST, "the file is no PNG");
    *out = (luna_png_walker){.file = file, .len = len, .at = SIGNATURE_BYTES};
    return LUNA_OK;
}

static bool is_type(const uint8_t *type)
{
    for (int i = 0; i < 4; i++) {
        const uint8_t lower = type[i] | 0x20;
        if (lower < 'a' || lower > 'z') return false;
    }
    return true;
}

static luna_err check_order(const luna_png_walker *w, const luna_png_chunk *c)
{
    const bool first = w->at == SIGNATURE_BYTES;
    const bool header = strcmp(c->type, "IHDR") == 0;
    if (first != header) return unsound(w->at, "IHDR is not the first and only one");
    if (header && c->len != IHDR_BYTES) return unsound(w->at, "IHDR has a wrong length");
    if (strcmp(c->type, "IEND") != 0) return LUNA_OK;
    if (c->len != 0 || w->at + FRAME_BYTES != w->len)
        return unsound(w->at, "IEND is not the end");
    return LUNA_OK;
}

luna_err luna_png_next(luna_png_walker *walker, luna_png_chunk *out)
{
    if (walker->ended) return luna_error(LUNA_NOT_FOUND, "the PNG has no more chunks");
    const size_t left = walker->len - walker->at;
    const uint8_t *at = walker->file + walker->at;
    if (left < FRAME_BYTES) return unsound(walker->at, "it is cut off");
    const size_t len = read_u32(at);
    if (len > LUNA_PNG_CHUNK_MAX || len > left - FRAME_BYTES)
        return unsound(walker->at, "a chunk is longer than the file");
    if (!is_type(at + 4))
        return unsound(walker->at, "a chunk's type is not four letters");
    if (chunk_crc(at + 4, len) != read_u32(at + 8 + len))
        return unsound(walker->at, "a chunk's CRC is wrong");
    luna_png_chunk chunk = {.data = at + 8, .len = len, .at = walker->at};
    memcpy(chunk.type, at + 4, 4);
    LUNA_TRY(check_order(walker, &chunk));
    walker->ended = strcmp(chunk.type, "IEND") == 0;
    walker->at += FRAME_BYTES + len;
    *out = chunk;
    return LUNA_OK;
}

//  ---- text chunks ----------------------------------------------------------------

//  The keyword's length when the chunk is a text chunk with one, else 0.
static size_t keyword_len(const luna_png_chunk *c)
{
    if (strcmp(c->type, "tEXt") != 0 && strcmp(c->type, "iTXt") != 0 &&
        strcmp(c->type, "zTXt") != 0)
        return 0;
    const uint8_t *end = memchr(c->data, '\0', c->len);
    return end ? (size_t)(end - c->data) : 0;
}

//  The text of a tEXt or uncompressed iTXt chunk whose keyword has `skip` bytes.
static bool text_of(const luna_png_chunk *c, size_t skip, const char **out, size_t *len)
{
    const uint8_t *at = c->data + skip + 1, *end = c->data + c->len;
    if (strcmp(c->type, "iTXt") == 0) {
        if (end - at < 2 || at[0] != 0) return false;
        at += 2;
        for (int field = 0; field < 2; field++) {
            at = memchr(at, '\0', (size_t)(end - at));
            if (!at) return false;
            at++;
        }
    } else if (strcmp(c->type, "tEXt") != 0) {
        return false;
    }
    *out = (const char *)at;
    *len = (size_t)(end - at);
    return true;
}

luna_err luna_png_find_text(const void *file, size_t len, const char *keyword,
                            const char **out, size_t *out_len)
{
    luna_png_walker walker = {0};
    luna_png_chunk chunk;
    const size_t want = strlen(keyword);
    LUNA_TRY(luna_png_walk(file, len, &walker));
    while (!walker.ended) {
        LUNA_TRY(luna_png_next(&walker, &chunk));
        const size_t has = keyword_len(&chunk);
        if (has == 0 || has != want || memcmp(chunk.data, keyword, has) != 0) continue;
        if (text_of(&chunk, has, out, out_len)) return LUNA_OK;
    }
    return luna_error(LUNA_NOT_FOUND, "the PNG has no text \"%.79s\"", keyword);
}

//  ---- adding texts -----------------------------------------------------------------

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] > 0x7F) return false;
    return true;
}

static luna_err check_keyword(const char *keyword)
{
    const size_t len = strnlen(keyword, LUNA_PNG_KEYWORD_MAX + 1);
    bool good = len >= 1 && len <= LUNA_PNG_KEYWORD_MAX;
    for (size_t i = 0; good && i < len; i++) {
        const uint8_t c = (uint8_t)keyword[i];
        good = (c >= 33 && c <= 126) || c >= 161 ||
               (c == ' ' && i > 0 && i + 1 < len && keyword[i - 1] != ' ');
    }
    if (good) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST,
                      "\"%.79s\" cannot be a PNG keyword: 1 to 79 printable Latin-1 "
                      "characters, no space at an end and no two together",
                      keyword);
}

static size_t chunk_len(const luna_image_text *t)
{
    const size_t extra = is_ascii(t->text, t->len) ? 0 : ITXT_EXTRA;
    return strlen(t->keyword) + 1 + extra + t->len;
}

static luna_err check_text(const luna_image_text *t)
{
    LUNA_TRY(check_keyword(t->keyword));
    if (t->len > LUNA_PNG_CHUNK_MAX - (LUNA_PNG_KEYWORD_MAX + 1 + ITXT_EXTRA))
        return luna_error(LUNA_TOO_LARGE,
                          "the text \"%s\" has %zu bytes; a PNG takes 2 GiB", t->keyword,
                          t->len);
    if (t->len > 0 && memchr(t->text, '\0', t->len))
        return luna_error(LUNA_BAD_REQUEST, "the text \"%s\" holds a NUL", t->keyword);
    if (!luna_utf8_valid(t->text, t->len))
        return luna_error(LUNA_BAD_REQUEST, "the text \"%s\" is not UTF-8", t->keyword);
    return LUNA_OK;
}

static int by_keyword(const void *a, const void *b)
{
    const char *const *left = a, *const *right = b;
    return strcmp(*left, *right);
}

//  The keywords in order, so that a job with very many does not cost their square.
static luna_err sort_keywords(const luna_image_text *texts, size_t count,
                              const char ***out)
{
    const char **sorted = calloc(count ? count : 1, sizeof *sorted);
    if (!sorted) return luna_error(LUNA_NO_MEMORY, "no memory for %zu keywords", count);
    for (size_t i = 0; i < count; i++) sorted[i] = texts[i].keyword;
    qsort(sorted, count, sizeof *sorted, by_keyword);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) != 0) continue;
        const luna_err err =
            luna_error(LUNA_BAD_REQUEST, "the PNG text \"%s\" is given twice", sorted[i]);
        free(sorted);
        return err;
    }
    *out = sorted;
    return LUNA_OK;
}

static luna_err check_new(const luna_png_chunk *c, const char **sorted, size_t count)
{
    char keyword[LUNA_PNG_KEYWORD_MAX + 1];
    const char *key = keyword;
    const size_t len = keyword_len(c);
    if (len == 0 || len > LUNA_PNG_KEYWORD_MAX) return LUNA_OK;
    memcpy(keyword, c->data, len);
    keyword[len] = '\0';
    if (!bsearch(&key, sorted, count, sizeof *sorted, by_keyword)) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "the PNG has a text \"%s\" already", keyword);
}

static bool is_kept(const luna_png_chunk *c)
{
    return strcmp(c->type, "tIME") != 0 && strcmp(c->type, "pHYs") != 0;
}

//  Checks the whole file and adds the bytes of the chunks that stay to *total.
static luna_err measure_file(luna_png_walker walker, const char **sorted, size_t count,
                             size_t *total)
{
    luna_png_chunk chunk;
    while (!walker.ended) {
        LUNA_TRY(luna_png_next(&walker, &chunk));
        LUNA_TRY(check_new(&chunk, sorted, count));
        if (is_kept(&chunk)) *total += FRAME_BYTES + chunk.len;
    }
    return LUNA_OK;
}

static luna_err measure_texts(const luna_image_text *texts, size_t count, size_t *total)
{
    for (size_t i = 0; i < count; i++) {
        LUNA_TRY(check_text(&texts[i]));
        if (__builtin_add_overflow(*total, FRAME_BYTES + chunk_len(&texts[i]), total))
            return luna_error(LUNA_TOO_LARGE, "the texts do not fit in memory");
    }
    return LUNA_OK;
}

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = (uint8_t)(value >> shift);
    return at;
}

static uint8_t *put_bytes(uint8_t *at, const void *data, size_t len)
{
    if (len > 0) memcpy(at, data, len);
    return at + len;
}

static uint8_t *put_text(uint8_t *at, const luna_image_text *t)
{
    static const uint8_t extra[ITXT_EXTRA] = {0, 0, 0, 0};
    const bool ascii = is_ascii(t->text, t->len);
    const size_t len = chunk_len(t);
    uint8_t *type = put_u32(at, (uint32_t)len);
    at = put_bytes(type, ascii ? "tEXt" : "iTXt", 4);
    at = put_bytes(at, t->keyword, strlen(t->keyword) + 1);
    at = put_bytes(at, extra, ascii ? 0 : ITXT_EXTRA);
    at = put_bytes(at, t->text, t->len);
    return put_u32(at, chunk_crc(type, len));
}

//  The file was measured: every chunk is sound and *at has room for all.
static luna_err write_all(luna_png_walker walker, const luna_image_text *texts,
                          size_t count, uint8_t *at)
{
    luna_png_chunk chunk;
    at = put_bytes(at, signature, SIGNATURE_BYTES);
    while (!walker.ended) {
        LUNA_TRY(luna_png_next(&walker, &chunk));
        if (is_kept(&chunk))
            at = put_bytes(at, walker.file + chunk.at, FRAME_BYTES + chunk.len);
        if (strcmp(chunk.type, "IHDR") != 0) continue;
        for (size_t i = 0; i < count; i++) at = put_text(at, &texts[i]);
    }
    return LUNA_OK;
}

luna_err luna_png_check_texts(const luna_image_text *texts, size_t count)
{
    size_t total = 0;
    const char **sorted = NULL;
    LUNA_TRY(measure_texts(texts, count, &total));
    LUNA_TRY(sort_keywords(texts, count, &sorted));
    free(sorted);
    return LUNA_OK;
}

luna_err luna_png_add_text(const void *file, size_t len, const luna_image_text *texts,
                           size_t count, uint8_t **out, size_t *out_len)
{
    luna_png_walker walker = {0};
    const char **sorted = NULL;
    uint8_t *made = NULL;
    size_t total = SIGNATURE_BYTES;
    LUNA_TRY(luna_png_walk(file, len, &walker));
    LUNA_TRY(measure_texts(texts, count, &total));
    LUNA_TRY(sort_keywords(texts, count, &sorted));
    luna_err err = measure_file(walker, sorted, count, &total);
    free(sorted);
    if (err != LUNA_OK) return err;
    made = malloc(total);
    if (!made)
        return luna_error(LUNA_NO_MEMORY, "no memory for a PNG of %zu bytes", total);
    err = write_all(walker, texts, count, made);
    if (err != LUNA_OK) {
        free(made);
        return err;
    }
    *out = made;
    *out_len = total;
    return LUNA_OK;
}
