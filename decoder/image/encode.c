#include "decoder/image/encode.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <vips/vips.h>

//  libpng's filter for each zlib level. Unfiltered rows make photographs 20 to 50 %
//  larger. Trying every filter on each row ("all") saves 1 % over Paeth and costs 10 %
//  of the time from level 4 on, 30 % below, where Up is the fastest. Stored rows gain
//  nothing from a filter; Up costs nothing there.
static const VipsForeignPngFilter filters[LUNA_PNG_COMPRESSION_MAX + 1] = {
    VIPS_FOREIGN_PNG_FILTER_UP,  VIPS_FOREIGN_PNG_FILTER_UP,
    VIPS_FOREIGN_PNG_FILTER_UP,  VIPS_FOREIGN_PNG_FILTER_PAETH,
    VIPS_FOREIGN_PNG_FILTER_ALL, VIPS_FOREIGN_PNG_FILTER_ALL,
    VIPS_FOREIGN_PNG_FILTER_ALL, VIPS_FOREIGN_PNG_FILTER_ALL,
    VIPS_FOREIGN_PNG_FILTER_ALL, VIPS_FOREIGN_PNG_FILTER_ALL,
};

//  Measured on photographs and drawings (make bench-encode).
#define WEBP_LOSSY_EFFORT     2
#define WEBP_LOSSLESS_EFFORT  1
#define WEBP_LOSSLESS_QUALITY 0
#define JPEG_WHOLE_COLOUR     95

luna_encode_options luna_encode_options_default(void)
{
    return (luna_encode_options){.format = LUNA_FORMAT_PNG,
                                 .png_compression = LUNA_PNG_COMPRESSION_DEFAULT,
                                 .lossy_quality = LUNA_LOSSY_QUALITY_DEFAULT};
}

//  libvips keeps one text for all threads; under load it may be another image's.
static luna_err vips_failed(const char *what)
{
    char *reason = vips_error_buffer_copy();
    g_strchomp(reason);
    const luna_err err = luna_error(LUNA_INTERNAL, "%s: %.500s", what, reason);
    g_free(reason);
    return err;
}

luna_err luna_image_start(void)
{
    if (VIPS_INIT("luna") != 0) return vips_failed("libvips does not start");
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    return LUNA_OK;
}

void luna_image_thread_end(void)
{
    vips_thread_shutdown();
}

void luna_image_stop(void)
{
    vips_shutdown();
}

//  *bytes is the size of the pixels: at most 10^12 * 4, which fits any size_t.
static luna_err check(const luna_pixels *pixels, size_t *bytes)
{
    if (pixels->width == 0 || pixels->width > LUNA_IMAGE_MAX_SIDE_PX ||
        pixels->height == 0 || pixels->height > LUNA_IMAGE_MAX_SIDE_PX)
        return luna_error(
            LUNA_BAD_REQUEST,
            "an image of %zu x %zu pixels cannot be encoded; sides are 1 to "
            "%d",
            pixels->width, pixels->height, LUNA_IMAGE_MAX_SIDE_PX);
    if (pixels->channels != 3 && pixels->channels != 4)
        return luna_error(LUNA_BAD_REQUEST,
                          "an image of %zu channels cannot be encoded; it must be RGB or "
                          "RGBA",
                          pixels->channels);
    *bytes = pixels->width * pixels->height * pixels->channels;
    return LUNA_OK;
}

//  The bytes are from g_malloc, which is malloc since GLib 2.46.
static luna_err take(int rc, luna_format format, void *file, size_t len, uint8_t **out,
                     size_t *out_len)
{
    char what[64];
    snprintf(what, sizeof what, "libvips cannot write the %s", luna_format_word(format));
    if (rc != 0) return vips_failed(what);
    *out = file;
    *out_len = len;
    return LUNA_OK;
}

static luna_err check_quality(const luna_encode_options *options)
{
    const int quality = options->lossy_quality;
    if (quality >= LUNA_LOSSY_QUALITY_MIN && quality <= LUNA_LOSSY_QUALITY_MAX)
        return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "quality is %d to %d, not %d",
                      LUNA_LOSSY_QUALITY_MIN, LUNA_LOSSY_QUALITY_MAX, quality);
}

static luna_err encode_png(VipsImage *image, const luna_encode_options *options,
                           uint8_t **out, size_t *out_len)
{
    void *file = NULL;
    size_t len = 0;
    const int level = options->png_compression;
    if (level < 0 || level > LUNA_PNG_COMPRESSION_MAX)
        return luna_error(LUNA_BAD_REQUEST, "PNG compression is 0 to %d, not %d",
                          LUNA_PNG_COMPRESSION_MAX, level);
    const int rc = vips_pngsave_buffer(image, &file, &len, "compression", level, "filter",
                                       filters[level], "strip", TRUE, NULL);
    return take(rc, LUNA_FORMAT_PNG, file, len, out, out_len);
}

static luna_err encode_webp(VipsImage *image, const luna_encode_options *options,
                            uint8_t **out, size_t *out_len)
{
    void *file = NULL;
    size_t len = 0;
    LUNA_TRY(check_quality(options));
    const gboolean lossless = options->lossless;
    const int quality = lossless ? WEBP_LOSSLESS_QUALITY : options->lossy_quality;
    const int effort = lossless ? WEBP_LOSSLESS_EFFORT : WEBP_LOSSY_EFFORT;
    const int rc =
        vips_webpsave_buffer(image, &file, &len, "Q", quality, "effort", effort,
                             "lossless", lossless, "strip", TRUE, NULL);
    return take(rc, LUNA_FORMAT_WEBP, file, len, out, out_len);
}

static luna_err encode_jpeg(VipsImage *image, const luna_encode_options *options,
                            uint8_t **out, size_t *out_len)
{
    void *file = NULL;
    size_t len = 0;
    LUNA_TRY(check_quality(options));
    const int quality = options->lossy_quality;
    VipsArrayDouble *white = vips_array_double_newv(1, 255.0);
    const int rc =
        vips_jpegsave_buffer(image, &file, &len, "Q", quality, "subsample_mode",
                             quality < JPEG_WHOLE_COLOUR ? VIPS_FOREIGN_SUBSAMPLE_ON
                                                         : VIPS_FOREIGN_SUBSAMPLE_OFF,
                             "background", white, "strip", TRUE, NULL);
    vips_area_unref(VIPS_AREA(white));
    return take(rc, LUNA_FORMAT_JPEG, file, len, out, out_len);
}

//  The pixels as an sRGB image, not copied. The caller unrefs *out.
static luna_err wrap(const luna_pixels *pixels, size_t bytes, VipsImage **out)
{
    VipsImage *plain = vips_image_new_from_memory(
        pixels->data, bytes, (int)pixels->width, (int)pixels->height,
        (int)pixels->channels, VIPS_FORMAT_UCHAR);
    if (!plain) return vips_failed("libvips does not take the pixels");
    const int rc =
        vips_copy(plain, out, "interpretation", VIPS_INTERPRETATION_sRGB, NULL);
    g_object_unref(plain);
    return rc == 0 ? LUNA_OK : vips_failed("libvips does not take the pixels");
}

luna_err luna_image_fits(luna_format format, size_t width, size_t height)
{
    static const size_t most[LUNA_FORMAT_COUNT] = {
        [LUNA_FORMAT_PNG] = LUNA_IMAGE_MAX_SIDE_PX,
        [LUNA_FORMAT_WEBP] = 16383,
        [LUNA_FORMAT_JPEG] = 65500};
    if (width <= most[format] && height <= most[format]) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST,
                      "a picture of %zu x %zu pixels does not fit a %s, whose sides end "
                      "at %zu%s",
                      width, height, luna_format_word(format), most[format],
                      format == LUNA_FORMAT_PNG ? "" : "; use png");
}

luna_err luna_image_encode(const luna_pixels *pixels, const luna_encode_options *options,
                           uint8_t **out, size_t *out_len)
{
    static luna_err (*const encoders[LUNA_FORMAT_COUNT])(
        VipsImage *, const luna_encode_options *, uint8_t **, size_t *) = {
        [LUNA_FORMAT_PNG] = encode_png,
        [LUNA_FORMAT_WEBP] = encode_webp,
        [LUNA_FORMAT_JPEG] = encode_jpeg};
    size_t bytes = 0;
    LUNA_TRY(check(pixels, &bytes));
    LUNA_TRY(luna_image_fits(options->format, pixels->width, pixels->height));
    VipsImage *image = NULL;
    LUNA_TRY(wrap(pixels, bytes, &image));
    const luna_err err = encoders[options->format](image, options, out, out_len);
    g_object_unref(image);
    return err;
}
