#include "decoder/image/encoders.h"

#include <glib.h>
#include <string.h>
#include <vips/vips.h>

//  Measured on photographs and drawings (make bench-encode): libwebp's default effort of
//  4 takes twice the time for the same size within 2 %; without loss effort 1 takes a
//  third and gives 6 % more on photographs.
#define LOSSY_EFFORT     2
#define LOSSLESS_EFFORT  1
#define LOSSLESS_QUALITY 0

//  libvips keeps one text for all threads; under load it may be another image's.
static luna_err vips_failed(const char *what)
{
    char *reason = vips_error_buffer_copy();
    g_strchomp(reason);
    const luna_err err = luna_error(LUNA_INTERNAL, "%s: %.500s", what, reason);
    g_free(reason);
    return err;
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

static luna_err save(VipsImage *image, const luna_encode_options *options, uint8_t **out,
                     size_t *out_len)
{
    void *file = NULL;
    size_t len = 0;
    const gboolean lossless = options->lossless;
    const int quality = lossless ? LOSSLESS_QUALITY : options->lossy_quality;
    const int effort = lossless ? LOSSLESS_EFFORT : LOSSY_EFFORT;
    if (vips_webpsave_buffer(image, &file, &len, "Q", quality, "effort", effort,
                             "lossless", lossless, "strip", TRUE, NULL) != 0)
        return vips_failed("libvips cannot write the webp");
    *out = file;  //  from g_malloc, which is malloc since GLib 2.46
    *out_len = len;
    return LUNA_OK;
}

luna_err luna_encode_webp(const luna_pixels *pixels, const luna_encode_options *options,
                          uint8_t **out, size_t *out_len)
{
    LUNA_TRY(luna_encode_check_quality(options));
    VipsImage *image = NULL;
    const size_t bytes = pixels->width * pixels->height * pixels->channels;
    LUNA_TRY(wrap(pixels, bytes, &image));
    const luna_err err = save(image, options, out, out_len);
    g_object_unref(image);
    return err;
}
