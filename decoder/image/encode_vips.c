#include "decoder/image/encode_vips.h"

#include <glib.h>

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

static luna_err save_image(VipsImage *image, luna_vips_save *save,
                           const luna_encode_options *options, uint8_t **out,
                           size_t *out_len)
{
    void *file = NULL;
    size_t len = 0;
    char what[64];
    snprintf(what, sizeof what, "libvips cannot write the %s",
             luna_format_word(options->format));
    if (save(image, options, &file, &len) != 0) return vips_failed(what);
    *out = file;  //  from g_malloc, which is malloc since GLib 2.46
    *out_len = len;
    return LUNA_OK;
}

luna_err luna_vips_encode(const luna_pixels *pixels, const luna_encode_options *options,
                          luna_vips_save *save, uint8_t **out, size_t *out_len)
{
    VipsImage *image = NULL;
    const size_t bytes = pixels->width * pixels->height * pixels->channels;
    LUNA_TRY(luna_encode_check_quality(options));
    LUNA_TRY(wrap(pixels, bytes, &image));
    const luna_err err = save_image(image, save, options, out, out_len);
    g_object_unref(image);
    return err;
}
