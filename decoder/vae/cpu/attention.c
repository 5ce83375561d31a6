//  Attention as two matrix products, for so many rows of scores at a time that they stay
//  in the processor's cache.

#include "decoder/vae/attention.h"
#include "decoder/vae/cpu/onednn.h"

#include <math.h>

enum { SCORE_BYTES = 4 << 20 };

//  Query pixels at a time.
static size_t rows_of(size_t pixels)
{
    const size_t rows = SCORE_BYTES / sizeof(float) / pixels;
    const size_t least = 16;
    const size_t wanted = rows < least ? least : rows;
    return wanted < pixels ? wanted : pixels;
}

size_t cpu_attention_bytes(const luna_shape *shape)
{
    const size_t pixels = shape->height * shape->width;
    return rows_of(pixels) * pixels * sizeof(float);
}

luna_err cpu_attention_run(const luna_shape *shape, const float *q, const float *k,
                           const float *v, float *scratch, float *out)
{
    const dnnl_dim_t channels = (dnnl_dim_t)shape->channels;
    const dnnl_dim_t pixels = (dnnl_dim_t)(shape->height * shape->width);
    const dnnl_dim_t room = (dnnl_dim_t)rows_of((size_t)pixels);
    const float scale = 1.0F / sqrtf((float)channels);
    for (dnnl_dim_t at = 0; at < pixels; at += room) {
        const dnnl_dim_t rows = pixels - at < room ? pixels - at : room;
        LUNA_TRY(cpu_check(dnnl_sgemm('T', 'N', rows, pixels, channels, scale, q + at,
                                      pixels, k, pixels, 0.0F, scratch, pixels),
                           "the scores of attention"));
        for (dnnl_dim_t i = 0; i < rows; i++)
            luna_softmax_run(scratch + i * pixels, (size_t)pixels);
        LUNA_TRY(cpu_check(dnnl_sgemm('N', 'T', channels, rows, pixels, 1.0F, v, pixels,
                                      scratch, pixels, 0.0F, out + at, pixels),
                           "attention"));
    }
    return LUNA_OK;
}
