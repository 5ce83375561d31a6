//  Encoding: the pixels that come back are the pixels that went in, at every level,
//  from several threads, with texts added.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>

#include "decoder/image/encode.h"
#include "decoder/image/png_chunks.h"

#define THREADS 4

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

//  A gradient with noise: neither flat nor random.
static uint8_t *make_pixels(size_t width, size_t height, size_t channels, unsigned seed)
{
    uint8_t *data = malloc(width * height * channels);
    assert_non_null(data);
    for (size_t i = 0; i < width * height * channels; i++) {
        const size_t pixel = i / channels;
        data[i] = (uint8_t)(pixel % width + pixel / width * (i % channels) +
                            (size_t)rand_r(&seed) % 8);
    }
    return data;
}

static void check_pixels(const uint8_t *file, size_t len, const luna_pixels *want)
{
    size_t bytes;
    VipsImage *image = vips_image_new_from_buffer(file, len, "", NULL);
    assert_non_null(image);
    assert_int_equal(vips_image_get_width(image), want->width);
    assert_int_equal(vips_image_get_height(image), want->height);
    assert_int_equal(vips_image_get_bands(image), want->channels);
    assert_int_equal(vips_image_get_format(image), VIPS_FORMAT_UCHAR);
    assert_int_equal(vips_image_get_interpretation(image), VIPS_INTERPRETATION_sRGB);
    void *got = vips_image_write_to_memory(image, &bytes);
    assert_int_equal(bytes, want->width * want->height * want->channels);
    assert_memory_equal(got, want->data, bytes);
    g_free(got);
    g_object_unref(image);
}

//  Every chunk is sound, and only the picture's own are there.
static void check_chunks(const uint8_t *file, size_t len)
{
    luna_png_walker walker;
    luna_png_chunk chunk;
    assert_int_equal(luna_png_walk(file, len, &walker), LUNA_OK);
    while (!walker.ended) {
        if (luna_png_next(&walker, &chunk) != LUNA_OK) fail_msg("%s", luna_error_text());
        assert_true(strcmp(chunk.type, "IHDR") == 0 || strcmp(chunk.type, "IDAT") == 0 ||
                    strcmp(chunk.type, "tEXt") == 0 || strcmp(chunk.type, "iTXt") == 0 ||
                    strcmp(chunk.type, "IEND") == 0);
    }
}

static size_t round_trip(const luna_pixels *pixels, int level)
{
    luna_encode_options options = luna_encode_options_default();
    options.png_compression = level;
    const luna_image_text texts[] = {{"prompt", "{}", 2, LUNA_TEXT_GRAPH},
                                     {"note", "\xC3\xA9", 2, LUNA_TEXT_NOTE}};
    uint8_t *plain, *file;
    size_t plain_len, len, text_len;
    const char *text;
    if (luna_image_encode(pixels, &options, &plain, &plain_len) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    check_pixels(plain, plain_len, pixels);
    assert_int_equal(luna_png_add_text(plain, plain_len, texts, 2, &file, &len), LUNA_OK);
    free(plain);
    check_pixels(file, len, pixels);
    check_chunks(file, len);
    assert_int_equal(luna_png_find_text(file, len, "note", &text, &text_len), LUNA_OK);
    assert_memory_equal(text, "\xC3\xA9", 2);
    free(file);
    return len;
}

static void test_round_trip(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 3},   {1, 7, 4},   {7, 1, 3},
                                       {64, 48, 3}, {65, 33, 4}, {200, 120, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        uint8_t *data = make_pixels(shapes[i][0], shapes[i][1], shapes[i][2], 1);
        const luna_pixels pixels = {data, shapes[i][0], shapes[i][1], shapes[i][2], 1};
        for (int level = 0; level <= LUNA_PNG_COMPRESSION_MAX; level++)
            round_trip(&pixels, level);
        free(data);
    }
}

//  16 bits a channel: every value comes back, at every level.
static void test_deep_pixels(void **state)
{
    (void)state;
    uint8_t *data = make_pixels(2 * 40, 30, 4, 9);
    for (size_t channels = 3; channels <= 4; channels++)
        for (int level = 0; level <= LUNA_PNG_COMPRESSION_MAX; level++) {
            const luna_pixels pixels = {data, 40, 30, channels, 2};
            luna_encode_options options = luna_encode_options_default();
            uint8_t *file;
            size_t len, bytes;
            options.png_compression = level;
            assert_int_equal(luna_image_encode(&pixels, &options, &file, &len), LUNA_OK);
            check_chunks(file, len);
            VipsImage *image = vips_image_new_from_buffer(file, len, "", NULL);
            assert_non_null(image);
            assert_int_equal(vips_image_get_format(image), VIPS_FORMAT_USHORT);
            assert_int_equal(vips_image_get_bands(image), channels);
            uint16_t *got = vips_image_write_to_memory(image, &bytes);
            assert_int_equal(bytes, 40 * 30 * channels * 2);
            for (size_t i = 0; i < bytes / 2; i++)
                assert_int_equal(got[i], data[2 * i] << 8 | data[2 * i + 1]);
            g_free(got);
            g_object_unref(image);
            free(file);
        }
    free(data);
}

//  Alpha is laid on white: what is transparent is white, whatever colour it has.
static void test_jpeg_has_no_alpha(void **state)
{
    (void)state;
    uint8_t data[16 * 16 * 4];
    luna_encode_options options = luna_encode_options_default();
    uint8_t *file;
    size_t len, bytes;
    options.format = LUNA_FORMAT_JPEG;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 4 == 3 ? (i / 4 % 16 < 8 ? 0 : 255) : 20);
    assert_int_equal(
        luna_image_encode(&(luna_pixels){data, 16, 16, 4, 1}, &options, &file, &len),
        LUNA_OK);
    VipsImage *image = vips_image_new_from_buffer(file, len, "", NULL);
    assert_non_null(image);
    assert_int_equal(vips_image_get_bands(image), 3);
    uint8_t *got = vips_image_write_to_memory(image, &bytes);
    for (size_t x = 0; x < 16; x++)
        assert_true(x < 8 ? got[3 * x] > 245 : got[3 * x] < 30);
    g_free(got);
    g_object_unref(image);
    free(file);
}

//  JPEG XL without loss gives every pixel back; AVIF and the lossy one are near, at every
//  size, with alpha too; a higher quality is nearer.
static double error_of(const luna_pixels *want, const luna_encode_options *options)
{
    uint8_t *file;
    size_t len, bytes;
    double sum = 0;
    if (luna_image_encode(want, options, &file, &len) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    VipsImage *image = vips_image_new_from_buffer(file, len, "", NULL);
    assert_non_null(image);
    assert_int_equal(vips_image_get_width(image), want->width);
    assert_int_equal(vips_image_get_height(image), want->height);
    assert_int_equal(vips_image_get_bands(image), want->channels);
    uint8_t *got = vips_image_write_to_memory(image, &bytes);
    assert_int_equal(bytes, want->width * want->height * want->channels);
    for (size_t i = 0; i < bytes; i++)
        sum += (got[i] - want->data[i]) * (got[i] - want->data[i]);
    g_free(got);
    g_object_unref(image);
    free(file);
    return sum / (double)bytes;
}

static void test_avif_and_jxl(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 3},   {1, 7, 4},   {7, 1, 3},
                                       {64, 48, 3}, {65, 33, 4}, {200, 120, 3}};
    static const luna_format formats[] = {LUNA_FORMAT_AVIF, LUNA_FORMAT_JXL};
    for (size_t f = 0; f < 2; f++) {
        if (luna_image_can(formats[f]) != LUNA_OK) continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const size_t *s = shapes[i];
            uint8_t *data = make_pixels(s[0], s[1], s[2], 1);
            const luna_pixels pixels = {data, s[0], s[1], s[2], 1};
            luna_encode_options options = luna_encode_options_default();
            options.format = formats[f];
            options.lossless = true;
            if (formats[f] == LUNA_FORMAT_JXL)
                assert_true(error_of(&pixels, &options) == 0);
            options.lossless = false;
            options.lossy_quality = 70;
            const double worst = error_of(&pixels, &options);
            options.lossy_quality = 100;
            const double best = error_of(&pixels, &options);
            assert_true(best < 10 && (best < worst || s[0] * s[1] < 60));
            free(data);
        }
    }
}

//  Flat areas are worth more effort: far smaller than a byte a pixel, and exact.
static void test_flat_jxl(void **state)
{
    (void)state;
    if (luna_image_can(LUNA_FORMAT_JXL) != LUNA_OK) skip();
    uint8_t *data = calloc(256 * 256, 4);
    for (size_t i = 0; i < 256 * 256 * 4; i++)
        data[i] = (uint8_t)(i / 4 % 256 / 37 * 23 + i / 1024 / 29 * 17);
    luna_encode_options options = luna_encode_options_default();
    options.format = LUNA_FORMAT_JXL;
    options.lossless = true;
    for (size_t channels = 3; channels <= 4; channels++) {
        const luna_pixels pixels = {data, 256, 256, channels, 1};
        uint8_t *file;
        size_t len;
        assert_true(error_of(&pixels, &options) == 0);
        assert_int_equal(luna_image_encode(&pixels, &options, &file, &len), LUNA_OK);
        assert_true(len < 256 * 256 / 8);
        free(file);
    }
    free(data);
}

static void test_levels_matter(void **state)
{
    (void)state;
    uint8_t *data = make_pixels(256, 256, 3, 1);
    const luna_pixels pixels = {data, 256, 256, 3, 1};
    const size_t stored = round_trip(&pixels, 0), fast = round_trip(&pixels, 1);
    const size_t best = round_trip(&pixels, 9);
    assert_true(stored > 256 * 256 * 3);
    assert_true(fast < stored && best <= fast);
    free(data);
}

static void test_same_pixels_same_bytes(void **state)
{
    (void)state;
    uint8_t *data = make_pixels(100, 50, 3, 7), *first, *second;
    const luna_pixels pixels = {data, 100, 50, 3, 1};
    const luna_encode_options options = luna_encode_options_default();
    size_t first_len, second_len;
    assert_int_equal(luna_image_encode(&pixels, &options, &first, &first_len), LUNA_OK);
    assert_int_equal(luna_image_encode(&pixels, &options, &second, &second_len), LUNA_OK);
    assert_int_equal(first_len, second_len);
    assert_memory_equal(first, second, first_len);
    free(first);
    free(second);
    free(data);
}

typedef struct job {
    unsigned seed;
    bool same;
} job;

//  cmocka's checks belong to the main thread: a thread only reports.
static void *encode_some(void *arg)
{
    job *j = arg;
    j->same = true;
    for (int i = 0; i < 10 && j->same; i++) {
        uint8_t *file;
        size_t len, bytes;
        uint8_t *data = make_pixels(80, 60, 3, j->seed + (unsigned)i);
        const luna_pixels pixels = {data, 80, 60, 3, 1};
        const luna_encode_options options = luna_encode_options_default();
        j->same = luna_image_encode(&pixels, &options, &file, &len) == LUNA_OK;
        if (j->same) {
            VipsImage *image = vips_image_new_from_buffer(file, len, "", NULL);
            void *got = image ? vips_image_write_to_memory(image, &bytes) : NULL;
            j->same = got && bytes == 80 * 60 * 3 && memcmp(got, data, bytes) == 0;
            g_free(got);
            if (image) g_object_unref(image);
            free(file);
        }
        free(data);
    }
    luna_image_thread_end();
    return NULL;
}

static void test_encode_pool(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    job jobs[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        jobs[i] = (job){.seed = 1000 * i};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_some, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < THREADS; i++) assert_true(jobs[i].same);
}

static void check_refused(luna_pixels pixels, luna_encode_options options, luna_err want)
{
    uint8_t *out = NULL;
    size_t len = 77;
    assert_int_equal(luna_image_encode(&pixels, &options, &out, &len), want);
    assert_null(out);
    assert_int_equal(len, 77);
}

static void test_refused(void **state)
{
    (void)state;
    static const uint8_t data[16];
    const luna_pixels good = {data, 2, 2, 3, 1};
    luna_encode_options options = luna_encode_options_default();
    check_refused((luna_pixels){data, 0, 2, 3, 1}, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 2, 0, 3, 1}, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 2, 2, 1, 1}, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 2, 2, 5, 1}, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, SIZE_MAX, 2, 3, 1}, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 2, 2, 3, 0}, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 2, 2, 3, 3}, options, LUNA_BAD_REQUEST);
    options.format = LUNA_FORMAT_JPEG;
    check_refused((luna_pixels){data, 2, 2, 3, 2}, options, LUNA_BAD_REQUEST);
    options.format = LUNA_FORMAT_PNG;
    options.png_compression = 10;
    check_refused(good, options, LUNA_BAD_REQUEST);
    options.png_compression = -1;
    check_refused(good, options, LUNA_BAD_REQUEST);
    options = luna_encode_options_default();
    options.format = LUNA_FORMAT_WEBP;
    options.lossy_quality = 0;
    check_refused(good, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 16384, 1, 3, 1}, options, LUNA_BAD_REQUEST);
    options.format = LUNA_FORMAT_JPEG;
    options.lossy_quality = 101;
    check_refused(good, options, LUNA_BAD_REQUEST);
    check_refused((luna_pixels){data, 1, 65501, 3, 1}, options, LUNA_BAD_REQUEST);
}

static void test_format_words(void **state)
{
    (void)state;
    luna_format format = LUNA_FORMAT_PNG;
    assert_int_equal(luna_format_parse("jpegX", 4, &format), LUNA_OK);
    assert_int_equal(format, LUNA_FORMAT_JPEG);
    assert_string_equal(luna_format_word(format), "jpeg");
    assert_string_equal(luna_format_extension(format), "jpg");
    assert_int_equal(luna_format_parse("jpg", 3, &format), LUNA_OK);
    assert_int_equal(luna_format_parse("webp", 4, &format), LUNA_OK);
    assert_int_equal(format, LUNA_FORMAT_WEBP);
    assert_int_equal(luna_format_parse("png", 3, &format), LUNA_OK);
    assert_int_equal(format, LUNA_FORMAT_PNG);
    assert_int_equal(luna_format_parse("PNG", 3, &format), LUNA_BAD_REQUEST);
    assert_int_equal(luna_format_parse("", 0, &format), LUNA_BAD_REQUEST);
    assert_int_equal(luna_format_parse(NULL, 0, &format), LUNA_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_deep_pixels),
        cmocka_unit_test(test_jpeg_has_no_alpha),
        cmocka_unit_test(test_avif_and_jxl),
        cmocka_unit_test(test_flat_jxl),
        cmocka_unit_test(test_levels_matter),
        cmocka_unit_test(test_same_pixels_same_bytes),
        cmocka_unit_test(test_encode_pool),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_format_words),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
