//  Texts in WebP and JPEG: where they stand, that every one comes back, what a JPEG is
//  left with, and that no pixel changes. Reads with a TIFF reader of its own; readers of
//  others are in tests/system.

#define _GNU_SOURCE  //  memmem

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>

#include "decoder/image/embed.h"
#include "decoder/image/jpeg_segments.h"
#include "decoder/image/webp_chunks.h"

#define SIDE 37

typedef struct file {
    uint8_t *data;
    size_t len;
} file;

static int setup(void **state)
{
    (void)state;
    return luna_image_start() == LUNA_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    luna_image_stop();
    return 0;
}

static file encode(luna_format format, bool lossless, size_t channels, unsigned seed)
{
    luna_encode_options options = luna_encode_options_default();
    uint8_t data[SIDE * SIDE * 4];
    file out = {0};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i / 7 + (size_t)rand_r(&seed) % 9);
    const luna_pixels pixels = {data, SIDE, SIDE, channels, 1};
    options.format = format;
    options.lossless = lossless;
    if (luna_image_encode(&pixels, &options, &out.data, &out.len) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return out;
}

static void *pixels_of(const file *from, size_t *bytes)
{
    VipsImage *image = vips_image_new_from_buffer(from->data, from->len, "", NULL);
    assert_non_null(image);
    assert_int_equal(vips_image_get_width(image), SIDE);
    void *data = vips_image_write_to_memory(image, bytes);
    g_object_unref(image);
    return data;
}

static file copy_of(const file *from)
{
    file out = {malloc(from->len), from->len};
    memcpy(out.data, from->data, from->len);
    return out;
}

//  The file with the texts; its pixels are checked against those before.
static file embed(const file *plain, luna_format format, const luna_image_text *texts,
                  size_t count, bool *left_out)
{
    size_t before, after;
    file made = copy_of(plain);
    if (luna_image_embed(format, texts, count, &made.data, &made.len, left_out) !=
        LUNA_OK)
        fail_msg("%s", luna_error_text());
    void *want = pixels_of(plain, &before), *got = pixels_of(&made, &after);
    assert_int_equal(before, after);
    assert_memory_equal(want, got, after);
    g_free(want);
    g_free(got);
    return made;
}

//  ---- reading --------------------------------------------------------------------

static bool find_block(const file *from, luna_format format, bool xmp,
                       const uint8_t **out, size_t *len)
{
    luna_webp_walker walker;
    luna_webp_chunk chunk;
    if (format == LUNA_FORMAT_JPEG)
        return luna_jpeg_find(from->data, from->len, xmp, out, len) == LUNA_OK;
    assert_int_equal(luna_webp_walk(from->data, from->len, &walker), LUNA_OK);
    while (luna_webp_next(&walker, &chunk) == LUNA_OK) {
        if (strcmp(chunk.type, xmp ? "XMP " : "EXIF") != 0) continue;
        *out = chunk.data;
        *len = chunk.len;
        return true;
    }
    return false;
}

static size_t be(const uint8_t *at, size_t bytes)
{
    size_t value = 0;
    while (bytes--) value = value << 8 | *at++;
    return value;
}

//  The entry of a tag in the IFD at `ifd`: its bytes.
static bool find_entry(const uint8_t *tiff, size_t len, size_t ifd, unsigned tag,
                       const uint8_t **out, size_t *out_len)
{
    size_t last = 0;
    for (size_t i = 0; i < be(tiff + ifd, 2); i++) {
        const uint8_t *e = tiff + ifd + 2 + 12 * i;
        assert_true(be(e, 2) > last);
        last = be(e, 2);
        const size_t bytes = be(e + 4, 4) * (be(e + 2, 2) == 4 ? 4 : 1);
        const size_t at = bytes <= 4 ? (size_t)(e + 8 - tiff) : be(e + 8, 4);
        assert_true(at + bytes <= len);
        assert_true(bytes <= 4 || at % 2 == 0);
        if (last != tag) continue;
        *out = tiff + at;
        *out_len = bytes;
        return true;
    }
    return false;
}

static bool has_entry(const file *from, luna_format format, unsigned tag,
                      const char *text)
{
    const uint8_t *tiff, *value;
    size_t len, bytes;
    if (!find_block(from, format, false, &tiff, &len)) return false;
    assert_memory_equal(tiff, "MM\0*\0\0\0\x08", 8);
    if (!find_entry(tiff, len, 8, tag, &value, &bytes)) return false;
    assert_int_equal(bytes, strlen(text) + 1);
    assert_memory_equal(value, text, bytes);
    return true;
}

static bool has_xmp(const file *from, luna_format format, const char *text)
{
    const uint8_t *packet;
    size_t len;
    return find_block(from, format, true, &packet, &len) &&
           memmem(packet, len, text, strlen(text));
}

//  ---- tests ----------------------------------------------------------------------

#define TEXT(keyword, text, kind)                         \
    {                                                     \
        keyword, text, sizeof(text) - 1, LUNA_TEXT_##kind \
    }

static const luna_image_text all[] = {
    TEXT("prompt", "{\"a\":\"caf\xC3\xA9 \xF0\x9F\x98\x80\"}", GRAPH),
    TEXT("workflow", "{\"n\":[]}", GRAPH),
    TEXT("extra", "1", GRAPH),
    TEXT("more", "[2]", GRAPH),
    TEXT("third", "[3]", GRAPH),
    TEXT("parameters", "p \xF0\x9F\x98\x80", PARAMETERS),
    TEXT("gen_note", "a<b&c>\r\n\"d\"", NOTE),
    TEXT("gen_odd key", "x", NOTE),
    TEXT("gen_control", "a\x01z", NOTE),
    TEXT("empty", "", NOTE),
};
#define ALL (sizeof all / sizeof *all)

static void check_all(const file *made, luna_format format)
{
    const uint8_t *tiff, *value;
    size_t len, bytes;
    assert_true(has_entry(made, format, 0x0110,
                          "prompt:{\"a\":\"caf\xC3\xA9 "
                          "\xF0\x9F\x98\x80\"}"));
    assert_true(has_entry(made, format, 0x010F, "workflow:{\"n\":[]}"));
    assert_true(has_entry(made, format, 0x010E, "extra:1"));
    assert_true(has_entry(made, format, 0x010D, "more:[2]"));
    assert_true(has_entry(made, format, 0xFE80, "third:[3]"));
    assert_true(has_entry(made, format, 0xFE81, "gen_odd key:x"));
    assert_true(has_entry(made, format, 0xFE82, "gen_control:a\x01z"));
    assert_true(has_xmp(made, format,
                        "<luna:gen_note>a&lt;b&amp;c&gt;&#xD;\n\"d\"</luna:gen_note>"));
    assert_true(has_xmp(made, format, "<luna:empty></luna:empty>"));
    assert_int_equal(has_entry(made, format, 0x9286,
                               "{\"prompt\":{\"a\":\"caf\xC3\xA9 \xF0\x9F\x98\x80\"}}"),
                     format == LUNA_FORMAT_JPEG);
    assert_true(find_block(made, format, false, &tiff, &len));
    assert_true(find_entry(tiff, len, 8, 0x8769, &value, &bytes));
    assert_true(find_entry(tiff, len, be(value, 4), 0x9286, &value, &bytes));
    assert_int_equal(bytes, 16);
    assert_memory_equal(value, "UNICODE\0\0p\0 \xD8\x3D\xDE\x00", 16);
}

static void test_every_text(void **state)
{
    (void)state;
    bool left_out[ALL];
    for (unsigned i = 0; i < 5; i++) {
        const luna_format format = i < 4 ? LUNA_FORMAT_WEBP : LUNA_FORMAT_JPEG;
        file plain = encode(format, i & 1, i < 2 || i == 4 ? 3 : 4, i);
        file made = embed(&plain, format, all, ALL, left_out);
        check_all(&made, format);
        for (size_t k = 0; k < ALL; k++) assert_false(left_out[k]);
        free(plain.data);
        free(made.data);
    }
}

//  An old ComfyUI page finds nothing behind a chunk of odd length.
static void test_no_odd_chunk(void **state)
{
    (void)state;
    bool left_out[ALL];
    unsigned odd = 0;
    for (unsigned i = 0; i < 40; i++) {
        file plain = encode(LUNA_FORMAT_WEBP, i & 1, i & 2 ? 3 : 4, i);
        luna_webp_walker walker;
        luna_webp_chunk chunk;
        assert_int_equal(luna_webp_walk(plain.data, plain.len, &walker), LUNA_OK);
        while (luna_webp_next(&walker, &chunk) == LUNA_OK) odd += chunk.len & 1;
        file made = embed(&plain, LUNA_FORMAT_WEBP, all, i % ALL, left_out);
        assert_int_equal(luna_webp_walk(made.data, made.len, &walker), LUNA_OK);
        while (luna_webp_next(&walker, &chunk) == LUNA_OK)
            assert_int_equal(chunk.len & 1, 0);
        free(plain.data);
        free(made.data);
    }
    assert_true(odd > 0);
}

static void test_without_texts(void **state)
{
    (void)state;
    static const luna_format formats[] = {LUNA_FORMAT_WEBP, LUNA_FORMAT_JPEG};
    for (size_t i = 0; i < 2; i++) {
        const uint8_t *block;
        size_t len;
        file plain = encode(formats[i], false, 3, 1);
        file made = embed(&plain, formats[i], NULL, 0, NULL);
        assert_false(find_block(&made, formats[i], false, &block, &len));
        assert_false(find_block(&made, formats[i], true, &block, &len));
        //  JFIF says nothing of a resolution.
        if (formats[i] == LUNA_FORMAT_JPEG)
            assert_memory_equal(made.data + 2, "\xFF\xE0\0\x10JFIF\0\1\1\0\0\1\0\1", 16);
        free(plain.data);
        free(made.data);
    }
}

//  ---- the ladder of JPEG ------------------------------------------------------------

static char filler[200000];

static void step(size_t prompt, size_t workflow, size_t extra, size_t parameters,
                 const char *lost)
{
    const luna_image_text texts[] = {
        {"prompt", filler, prompt, LUNA_TEXT_GRAPH},
        {"workflow", filler, workflow, LUNA_TEXT_GRAPH},
        {"extra", filler, extra, LUNA_TEXT_GRAPH},
        {"parameters", filler, parameters, LUNA_TEXT_PARAMETERS}};
    static const char letters[] = "pwea";
    bool left_out[4];
    char got[5] = "";
    file plain = encode(LUNA_FORMAT_JPEG, false, 3, 1);
    file made = embed(&plain, LUNA_FORMAT_JPEG, texts, 4, left_out);
    for (size_t i = 0; i < 4; i++)
        if (left_out[i]) got[strlen(got)] = letters[i];
    assert_string_equal(got, lost);
    for (size_t i = 0; i < 2; i++) {
        const uint8_t *tiff, *value;
        size_t len, bytes;
        const bool has = find_block(&made, LUNA_FORMAT_JPEG, false, &tiff, &len) &&
                         find_entry(tiff, len, 8, 0x0110 - (unsigned)i, &value, &bytes);
        assert_int_equal(has, !left_out[i]);
    }
    free(plain.data);
    free(made.data);
}

static void test_ladder(void **state)
{
    (void)state;
    memset(filler, 'x', sizeof filler);
    step(30000, 30000, 10, 10, "");        //  only the copy goes
    step(40000, 40000, 10, 10, "p");       //  the workflow can restore all
    step(40000, 80000, 10, 10, "w");       //  the prompt is better than nothing
    step(80000, 80000, 10, 10, "pw");      //
    step(80000, 80000, 80000, 10, "pwe");  //  Civitai's
    step(10, 10, 10, 40000, "pwea");       //  UTF-16 makes them 80 000 bytes
    //  To the byte: header, count, four entries of 12, next; the Exif IFD and its value.
    const size_t frame = 8 + 2 + 4 * 12 + 4 + 2 + 12 + 4 + 8 + 2 * 10;
    const size_t extra = 6 + 10 + 1 + 1, prompt = 7 + 100 + 1;
    const size_t rest = LUNA_JPEG_EXIF_MAX - frame - extra - prompt - 9 - 1;
    step(100, rest - rest % 2, 10, 10, "");
    step(100, rest - rest % 2 + 2, 10, 10, "p");
}

static void test_ladder_of_notes(void **state)
{
    (void)state;
    memset(filler, 'x', sizeof filler);
    const luna_image_text texts[] = {{"generation_metadata", filler, 100, LUNA_TEXT_NOTE},
                                     {"gen_a", filler, 40000, LUNA_TEXT_NOTE},
                                     {"gen_b", filler, 30000, LUNA_TEXT_NOTE},
                                     {"gen_c", "kept", 4, LUNA_TEXT_NOTE}};
    bool left_out[4];
    file plain = encode(LUNA_FORMAT_JPEG, false, 3, 1);
    file made = embed(&plain, LUNA_FORMAT_JPEG, texts, 4, left_out);
    assert_true(left_out[0] && left_out[1] && !left_out[2] && !left_out[3]);
    assert_true(has_xmp(&made, LUNA_FORMAT_JPEG, "<luna:gen_c>kept</luna:gen_c>"));
    free(made.data);
    made = embed(&plain, LUNA_FORMAT_JPEG, texts + 2, 2, left_out);
    assert_false(left_out[0] || left_out[1]);
    free(made.data);
    const luna_image_text heatmaps[] = {
        {"gen_d", filler, 40000, LUNA_TEXT_NOTE},
        {"daam_heatmaps", filler, 100, LUNA_TEXT_NOTE},
        {"generation_metadata", filler, 25300, LUNA_TEXT_NOTE}};
    made = embed(&plain, LUNA_FORMAT_JPEG, heatmaps, 3, left_out);
    assert_true(!left_out[0] && left_out[1] && left_out[2]);
    free(made.data);
    made = embed(&plain, LUNA_FORMAT_JPEG, heatmaps, 2, left_out);
    assert_false(left_out[0] || left_out[1]);
    free(made.data);
    free(plain.data);
}

static void test_webp_takes_megabytes(void **state)
{
    (void)state;
    char *large = malloc(3000000);
    memset(large, 'y', 3000000);
    const luna_image_text texts[] = {{"workflow", large, 2999999, LUNA_TEXT_GRAPH},
                                     {"note", large, 2999999, LUNA_TEXT_NOTE}};
    bool left_out[2];
    file plain = encode(LUNA_FORMAT_WEBP, true, 3, 1);
    file made = embed(&plain, LUNA_FORMAT_WEBP, texts, 2, left_out);
    assert_false(left_out[0] || left_out[1]);
    assert_true(made.len > 5999998);
    free(plain.data);
    free(made.data);
    free(large);
}

//  ---- what is refused -------------------------------------------------------------

static void test_damaged_files(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        const luna_format format = kind ? LUNA_FORMAT_JPEG : LUNA_FORMAT_WEBP;
        bool left_out[ALL];
        file plain = encode(format, false, 3, 1);
        for (size_t len = 0; len < 24; len++) {
            file cut = copy_of(&plain);
            uint8_t *before = cut.data;
            cut.len = len;
            assert_int_equal(
                luna_image_embed(format, all, ALL, &cut.data, &cut.len, left_out),
                LUNA_BAD_REQUEST);
            assert_ptr_equal(cut.data, before);
            free(cut.data);
        }
        const luna_image_text bad[] = {TEXT("key", "\xFF", NOTE)};
        assert_int_equal(
            luna_image_embed(format, bad, 1, &plain.data, &plain.len, left_out),
            LUNA_BAD_REQUEST);
        free(plain.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_text),
        cmocka_unit_test(test_no_odd_chunk),
        cmocka_unit_test(test_without_texts),
        cmocka_unit_test(test_ladder),
        cmocka_unit_test(test_ladder_of_notes),
        cmocka_unit_test(test_webp_takes_megabytes),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
