#include "decoder/image/encode.h"

#include "decoder/image/encoders.h"

#include <pthread.h>
#include <stdlib.h>
#include <vips/vips.h>

luna_encode_options luna_encode_options_default(void)
{
    return (luna_encode_options){.format = LUNA_FORMAT_PNG,
                                 .png_compression = LUNA_PNG_COMPRESSION_DEFAULT,
                                 .lossy_quality = LUNA_LOSSY_QUALITY_DEFAULT};
}

luna_err luna_image_start(void)
{
    if (VIPS_INIT("luna") != 0)
        return luna_error(LUNA_INTERNAL, "libvips does not start: %.500s",
                          vips_error_buffer());
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

static luna_err check(const luna_pixels *pixels)
{
    if (pixels->width == 0 || pixels->width > LUNA_IMAGE_MAX_SIDE_PX ||
        pixels->height == 0 || pixels->height > LUNA_IMAGE_MAX_SIDE_PX)
        return luna_error(
            LUNA_BAD_REQUEST,
            "an image of %zu x %zu pixels cannot be encoded; sides are 1 to %d",
            pixels->width, pixels->height, LUNA_IMAGE_MAX_SIDE_PX);
    if (pixels->sample_bytes != 1 && pixels->sample_bytes != 2)
        return luna_error(LUNA_BAD_REQUEST, "a sample has 1 or 2 bytes, not %zu",
                          pixels->sample_bytes);
    if (pixels->channels == 3 || pixels->channels == 4) return LUNA_OK;
    return luna_error(
        LUNA_BAD_REQUEST,
        "an image of %zu channels cannot be encoded; it must be RGB or RGBA",
        pixels->channels);
}

luna_err luna_encode_check_quality(const luna_encode_options *options)
{
    const int quality = options->lossy_quality;
    if (quality >= LUNA_LOSSY_QUALITY_MIN && quality <= LUNA_LOSSY_QUALITY_MAX)
        return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "quality is %d to %d, not %d",
                      LUNA_LOSSY_QUALITY_MIN, LUNA_LOSSY_QUALITY_MAX, quality);
}

luna_err luna_image_fits(luna_format format, size_t width, size_t height)
{
    static const size_t most[LUNA_FORMAT_COUNT] = {
        [LUNA_FORMAT_PNG] = LUNA_IMAGE_MAX_SIDE_PX,
        [LUNA_FORMAT_WEBP] = 16383,
        [LUNA_FORMAT_JPEG] = 65500,
        [LUNA_FORMAT_AVIF] = 16384,
        [LUNA_FORMAT_JXL] = LUNA_IMAGE_MAX_SIDE_PX};
    if (width <= most[format] && height <= most[format]) return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST,
                      "a picture of %zu x %zu pixels does not fit a %s, whose sides end "
                      "at %zu%s",
                      width, height, luna_format_word(format), most[format],
                      most[format] == LUNA_IMAGE_MAX_SIDE_PX ? "" : "; use png");
}

typedef luna_err encoder(const luna_pixels *pixels, const luna_encode_options *options,
                         uint8_t **out, size_t *out_len);

static encoder *const encoders[LUNA_FORMAT_COUNT] = {
    [LUNA_FORMAT_PNG] = luna_encode_png,
    [LUNA_FORMAT_WEBP] = luna_encode_webp,
    [LUNA_FORMAT_JPEG] = luna_encode_jpeg,
    [LUNA_FORMAT_AVIF] = luna_encode_avif,
    [LUNA_FORMAT_JXL] = luna_encode_jxl};

//  ---- what this machine has ----------------------------------------------------------

//  libvips may have its module for AVIF, and libheif no encoder for it: only a try tells.
static bool avif_works;

static void try_avif(void)
{
    static const uint8_t data[16 * 16 * 3];
    const luna_pixels pixels = {data, 16, 16, 3, 1};
    luna_encode_options options = luna_encode_options_default();
    uint8_t *file;
    size_t len;
    options.format = LUNA_FORMAT_AVIF;
    avif_works = vips_type_find("VipsOperation", "heifsave_buffer") != 0 &&
                 luna_encode_avif(&pixels, &options, &file, &len) == LUNA_OK;
    if (avif_works) free(file);
}

luna_err luna_image_can(luna_format format)
{
    static pthread_once_t avif_tried = PTHREAD_ONCE_INIT;
    if (format == LUNA_FORMAT_AVIF) {
        (void)pthread_once(&avif_tried, try_avif);
        if (avif_works) return LUNA_OK;
        return luna_error(LUNA_UNSUPPORTED,
                          "this decoder's libvips writes no AVIF: its heif module, or "
                          "libheif's AV1 encoder (libaom), is missing; install them, or "
                          "use webp");
    }
    if (format != LUNA_FORMAT_JXL || vips_type_find("VipsOperation", "jxlsave_buffer"))
        return LUNA_OK;
    return luna_error(LUNA_UNSUPPORTED,
                      "this decoder's libvips writes no JPEG XL: its jxl module is "
                      "missing; install it, or use webp");
}

luna_err luna_image_encode(const luna_pixels *pixels, const luna_encode_options *options,
                           uint8_t **out, size_t *out_len)
{
    LUNA_TRY(check(pixels));
    if (pixels->sample_bytes == 2 && options->format != LUNA_FORMAT_PNG)
        return luna_error(LUNA_BAD_REQUEST, "a %s has 8 bits a channel; 16 need png",
                          luna_format_word(options->format));
    LUNA_TRY(luna_image_fits(options->format, pixels->width, pixels->height));
    LUNA_TRY(luna_image_can(options->format));
    return encoders[options->format](pixels, options, out, out_len);
}
