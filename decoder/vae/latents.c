#include "decoder/vae/latents.h"

#include <math.h>
#include <string.h>

static size_t image_values(const luna_vae_latents *latents)
{
    return latents->channels * latents->height * latents->width;
}

static const uint8_t *value_at(const luna_vae_latents *latents, size_t index)
{
    return (const uint8_t *)latents->data + index * luna_dtype_size(latents->dtype);
}

//  Without a branch a value: nearly always all are, and many are asked at once.
static bool all_finite(const float *values, size_t count)
{
    const uint32_t exponent = 0x7f800000U;
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return bad == 0;
}

size_t luna_count_not_finite(const float *values, size_t count, size_t *first)
{
    size_t found = 0;
    if (all_finite(values, count)) return 0;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]) && found++ == 0) *first = i;
    return found;
}

luna_err luna_latents_check(const luna_vae_latents *latents, size_t first, size_t count)
{
    float chunk[1024];
    const size_t room = sizeof chunk / sizeof chunk[0], one = image_values(latents);
    const size_t begin = first * one, end = (first + count) * one;
    size_t found = 0, place = 0;
    for (size_t at = begin; at < end; at += room) {
        const size_t step = end - at < room ? end - at : room;
        size_t here = 0;
        LUNA_TRY(luna_dtype_to_float(latents->dtype, value_at(latents, at), step, chunk));
        const size_t bad = luna_count_not_finite(chunk, step, &here);
        if (found == 0) place = at + here;
        found += bad;
    }
    if (found == 0) return LUNA_OK;
    const size_t area = latents->height * latents->width;
    return luna_error(
        LUNA_BAD_LATENT,
        "the latents hold NaN or infinity: %zu times, first at image %zu, channel "
        "%zu, row %zu, column %zu",
        found, place / one, place % one / area, place % area / latents->width,
        place % latents->width);
}

luna_err luna_latents_read(const luna_vae_latents *latents, size_t index, float *out)
{
    const size_t one = image_values(latents);
    return luna_dtype_to_float(latents->dtype, value_at(latents, index * one), one, out);
}

//  Channels, height and width of a shape; false for one that is not an image batch.
static bool sort_sizes(const size_t *shape, size_t rank, luna_vae_latents *out)
{
    if (rank < 3 || rank > 5 || (rank == 5 && shape[2] != 1)) return false;
    out->count = rank == 3 ? 1 : shape[0];
    out->channels = shape[rank == 3 ? 0 : 1];
    out->height = shape[rank - 2];
    out->width = shape[rank - 1];
    return true;
}

luna_err luna_vae_latents_from(const void *data, luna_dtype dtype, const size_t *shape,
                               size_t rank, luna_vae_latents *out)
{
    luna_vae_latents latents = {.data = data, .dtype = dtype};
    size_t bytes = luna_dtype_size(dtype);
    if (!luna_dtype_is_float(dtype))
        return luna_error(LUNA_BAD_LATENT,
                          "latents of type %s; F16, BF16, F32 or F64 needed",
                          luna_dtype_name(dtype));
    if (rank == 5 && shape[2] > 1)
        return luna_error(LUNA_BAD_LATENT,
                          "latents of %zu frames: a video; one frame needed", shape[2]);
    if (!sort_sizes(shape, rank, &latents))
        return luna_error(
            LUNA_BAD_LATENT,
            "latents of %zu dimensions; [N, C, H, W] or [N, C, 1, H, W] needed", rank);
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] == 0) return luna_error(LUNA_BAD_LATENT, "the latents are empty");
        if (__builtin_mul_overflow(bytes, shape[i], &bytes))
            return luna_error(LUNA_BAD_LATENT,
                              "the latents' shape is too large to count");
    }
    *out = latents;
    return LUNA_OK;
}
