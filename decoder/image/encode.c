#include "decoder/image/encode.h"

#include "decoder/image/encoders.h"

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
    LUNA_TRY(check(pixels));
    if (pixels->sample_bytes == 2 && options->format != LUNA_FORMAT_PNG)
        return luna_error(LUNA_BAD_REQUEST, "a %s has 8 bits a channel; 16 need png",
                          luna_format_word(options->format));
    LUNA_TRY(luna_image_fits(options->format, pixels->width, pixels->height));
    switch (options->format) {
        case LUNA_FORMAT_WEBP:
            return luna_encode_webp(pixels, options, out, out_len);
        case LUNA_FORMAT_JPEG:
            return luna_encode_jpeg(pixels, options, out, out_len);
        default:
            return luna_encode_png(pixels, options, out, out_len);
    }
}
