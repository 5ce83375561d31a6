#include "decoder/image/encode_vips.h"

//  Measured on photographs and drawings (make bench-encode). Effort 0 takes a third of
//  the time, but makes drawings five times as large; 3 takes twice the time for 2 % less.
#define EFFORT       1
#define WHOLE_COLOUR 95  //  quality from which colour keeps the full resolution

//  libaom's scale is another one than JPEG's and WebP's: its quality that gives
//  photographs the same structural similarity, for a quality of 0, 70, 75 and so on to
//  100.
static int quality_of(int asked)
{
    static const int points[] = {54, 58, 62, 70, 80, 89, 100};
    if (asked <= 70) return asked * points[0] / 70;
    const int below = (asked - 70) / 5, beyond = asked % 5;
    if (beyond == 0) return points[below];
    return points[below] + (points[below + 1] - points[below]) * beyond / 5;
}

static int save(VipsImage *image, const luna_encode_options *options, void **file,
                size_t *len)
{
    const VipsForeignSubsample colour = options->lossy_quality < WHOLE_COLOUR
                                            ? VIPS_FOREIGN_SUBSAMPLE_ON
                                            : VIPS_FOREIGN_SUBSAMPLE_OFF;
    return vips_heifsave_buffer(image, file, len, "compression",
                                VIPS_FOREIGN_HEIF_COMPRESSION_AV1, "bitdepth", 8, "Q",
                                quality_of(options->lossy_quality), "effort", EFFORT,
                                "subsample_mode", colour, "strip", TRUE, NULL);
}

luna_err luna_encode_avif(const luna_pixels *pixels, const luna_encode_options *options,
                          uint8_t **out, size_t *out_len)
{
    return luna_vips_encode(pixels, options, save, out, out_len);
}
