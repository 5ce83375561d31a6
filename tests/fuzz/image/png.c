//  png.c - any bytes as a PNG file, and texts added to one
//
//  Whatever the file is, a walk over it ends; what was added is found as it was given.

#include "decoder/image/png_chunks.h"
#include "fuzz/fuzz.h"

#include <zlib.h>

enum { TEXTS = 4, KEY_BYTES = 90, TEXT_BYTES = 200 };

typedef struct texts {
    luna_image_text at[TEXTS];
    char keys[TEXTS][KEY_BYTES + 1];
    size_t count;
} texts;

static void choose_texts(fuzz_bytes *from, texts *out)
{
    out->count = (size_t)fuzz_below(from, TEXTS + 1);
    for (size_t i = 0; i < out->count; i++) {
        const luna_text key = fuzz_text(from, KEY_BYTES),
                        text = fuzz_text(from, TEXT_BYTES);
        if (key.len) memcpy(out->keys[i], key.data, key.len);
        out->keys[i][key.len] = '\0';
        out->at[i] = (luna_image_text){
            .keyword = out->keys[i], .text = text.data ? text.data : "", .len = text.len};
    }
}

static void check_found(const uint8_t *file, size_t len, const texts *given)
{
    for (size_t i = 0; i < given->count; i++) {
        const luna_image_text *text = &given->at[i];
        const char *found = NULL;
        size_t found_len = 0;
        CHECK(luna_png_find_text(file, len, text->keyword, &found, &found_len) ==
              LUNA_OK);
        CHECK(found_len == text->len);
        CHECK(found_len == 0 || memcmp(found, text->text, found_len) == 0);
    }
}

static size_t walk(const void *file, size_t len)
{
    luna_png_walker walker;
    luna_png_chunk chunk;
    size_t chunks = 0;
    if (luna_png_walk(file, len, &walker) != LUNA_OK) return 0;
    luna_err err;
    while ((err = luna_png_next(&walker, &chunk)) == LUNA_OK) {
        CHECK(chunk.data >= (const uint8_t *)file);
        CHECK(chunk.data + chunk.len + 4 <= (const uint8_t *)file + len);
        chunks++;
    }
    fuzz_check_error(err);
    return err == LUNA_NOT_FOUND ? chunks : 0;
}

static void put_u32(uint8_t *at, size_t value)
{
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

//  Makes every CRC right, so that what is behind them is reached.
static void mend(uint8_t *file, size_t len)
{
    for (size_t at = 8; at + 12 <= len;) {
        const size_t data = (size_t)file[at] << 24 | (size_t)file[at + 1] << 16 |
                            (size_t)file[at + 2] << 8 | file[at + 3];
        if (data > len - at - 12) return;
        put_u32(file + at + 8 + data, crc32(0, file + at + 4, (uInt)(data + 4)));
        at += 12 + data;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    texts given;
    const bool mended = fuzz_bool(&from);
    choose_texts(&from, &given);
    const luna_blob rest = fuzz_rest(&from);
    uint8_t *file = fuzz_copy(rest.data, rest.len), *out = NULL;
    size_t out_len = 0;
    if (mended) mend(file, rest.len);
    const size_t chunks = walk(file, rest.len);
    const luna_err err =
        luna_png_add_text(file, rest.len, given.at, given.count, &out, &out_len);
    if (err == LUNA_OK) {
        CHECK(chunks > 0);
        CHECK(walk(out, out_len) >= given.count + 2);
        check_found(out, out_len, &given);
    } else {
        fuzz_check_error(err);
    }
    free(out);
    free(file);
    return 0;
}
