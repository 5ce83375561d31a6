//  embed.c - any bytes as a WebP, JPEG, AVIF or JPEG XL file, and texts added to it
//
//  Whatever the file is, an answer comes; what was added stands in the new file, which is
//  again one that texts can be added to (AVIF but once); no text is lost in silence.

#include "decoder/image/avif_items.h"
#include "decoder/image/embed.h"
#include "decoder/image/jpeg_segments.h"
#include "decoder/image/jxl_boxes.h"
#include "decoder/image/webp_chunks.h"
#include "fuzz/fuzz.h"

#include <string.h>

enum { TEXTS = 4, KEY_BYTES = 90, TEXT_BYTES = 200, REPEATS = 600 };

typedef struct texts {
    luna_image_text at[TEXTS];
    char keys[TEXTS][KEY_BYTES + 1];
    char *large;  //  the first text again and again, so that a JPEG has not enough room
    size_t count;
} texts;

static char *repeat(luna_image_text *text, size_t times)
{
    char *data = malloc(text->len * times + 1);
    CHECK(data);
    for (size_t i = 0; i < times; i++)
        memcpy(data + i * text->len, text->text, text->len);
    text->text = data;
    text->len *= times;
    return data;
}

static void choose_texts(fuzz_bytes *from, texts *out)
{
    const luna_text_kind kinds[] = {LUNA_TEXT_NOTE, LUNA_TEXT_GRAPH};
    out->count = (size_t)fuzz_below(from, TEXTS + 1);
    for (size_t i = 0; i < out->count; i++) {
        const luna_text key = fuzz_text(from, KEY_BYTES),
                        text = fuzz_text(from, TEXT_BYTES);
        if (key.len) memcpy(out->keys[i], key.data, key.len);
        out->keys[i][key.len] = '\0';
        out->at[i] = (luna_image_text){.keyword = out->keys[i],
                                       .text = text.data ? text.data : "",
                                       .len = text.len,
                                       .kind = kinds[fuzz_bool(from)]};
        if (strcmp(out->keys[i], "parameters") == 0)
            out->at[i].kind = LUNA_TEXT_PARAMETERS;
    }
    out->large = NULL;
    if (out->count == 0 || !fuzz_bool(from)) return;
    out->large = repeat(&out->at[0], REPEATS);
}

typedef luna_err finder(const void *file, size_t len, bool xmp, const uint8_t **out,
                        size_t *out_len);

//  The block of the new file; empty when it has none.
static luna_blob block_of(luna_format format, const uint8_t *file, size_t len, bool xmp)
{
    luna_blob block = {0};
    luna_webp_walker walker;
    luna_webp_chunk chunk;
    if (format != LUNA_FORMAT_WEBP) {
        const uint8_t *at = NULL;
        finder *const find = format == LUNA_FORMAT_JPEG   ? luna_jpeg_find
                             : format == LUNA_FORMAT_AVIF ? luna_avif_find
                                                          : luna_jxl_find;
        if (find(file, len, xmp, &at, &block.len) == LUNA_OK) block.data = at;
        return block;
    }
    CHECK(luna_webp_walk(file, len, &walker) == LUNA_OK);
    while (luna_webp_next(&walker, &chunk) == LUNA_OK) {
        CHECK((chunk.len & 1) == 0);
        if (strcmp(chunk.type, xmp ? "XMP " : "EXIF") == 0)
            block = (luna_blob){chunk.data, chunk.len};
    }
    return block;
}

static bool holds(luna_blob block, const char *text, size_t len)
{
    const char *at = block.data;
    for (size_t i = 0; at && i + len <= block.len; i++)
        if (memcmp(at + i, text, len) == 0) return true;
    return false;
}

//  Each text that is not told as left out stands in one of the blocks; those that are
//  escaped or UTF-16 there are passed over.
static void check_found(luna_format format, const uint8_t *file, size_t len,
                        const texts *given, const bool *left_out)
{
    const luna_blob exif = block_of(format, file, len, false),
                    xmp = block_of(format, file, len, true);
    for (size_t i = 0; i < given->count; i++) {
        const luna_image_text *t = &given->at[i];
        CHECK(!left_out[i] || format == LUNA_FORMAT_JPEG);
        if (left_out[i] || t->kind == LUNA_TEXT_PARAMETERS) continue;
        if (t->len && (memchr(t->text, '&', t->len) || memchr(t->text, '<', t->len) ||
                       memchr(t->text, '>', t->len) || memchr(t->text, '\r', t->len)))
            continue;
        CHECK(holds(exif, t->text, t->len) || holds(xmp, t->text, t->len));
    }
}

static void embed_again(luna_format format, const texts *given, uint8_t **file,
                        size_t *len)
{
    bool left_out[TEXTS];
    const size_t before = *len;
    const bool twice = format == LUNA_FORMAT_AVIF && given->count > 0;
    CHECK(luna_image_embed(format, given->at, given->count, file, len, left_out) ==
          (twice ? LUNA_BAD_REQUEST : LUNA_OK));
    CHECK(*len == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    texts given = {0};
    bool left_out[TEXTS] = {0};
    static const luna_format formats[] = {LUNA_FORMAT_WEBP, LUNA_FORMAT_JPEG,
                                          LUNA_FORMAT_AVIF, LUNA_FORMAT_JXL};
    const luna_format format = formats[fuzz_below(&from, 4)];
    choose_texts(&from, &given);
    const luna_blob rest = fuzz_rest(&from);
    uint8_t *file = fuzz_copy(rest.data, rest.len);
    size_t file_len = rest.len;
    const luna_err err =
        luna_image_embed(format, given.at, given.count, &file, &file_len, left_out);
    if (err == LUNA_OK) {
        check_found(format, file, file_len, &given, left_out);
        embed_again(format, &given, &file, &file_len);
    } else {
        CHECK(file_len == rest.len);
        fuzz_check_error(err);
    }
    free(file);
    free(given.large);
    return 0;
}
