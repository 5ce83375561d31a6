#include "decoder/vae/pixels.h"

#include <math.h>

float luna_pixel_unit(float value, luna_pixels_range range)
{
    const float wide = range == LUNA_RANGE_UNIT ? (value - 0.5F) * 2.0F : value;
    const float unit = (wide + 1.0F) / 2.0F;
    return unit < 0.0F ? 0.0F : unit > 1.0F ? 1.0F : unit;
}

uint8_t luna_pixel_byte(float unit, luna_pixels_rule rule)
{
    const float value = 255.0F * unit;
    return (uint8_t)(rule == LUNA_PIXELS_ROUND ? rintf(value) : value);
}

static size_t sample_bytes(luna_pixels_format format)
{
    return format == LUNA_PIXELS_U8 ? sizeof(uint8_t) : sizeof(float);
}

size_t luna_pixels_bytes(const luna_vae_shape *shape, size_t count,
                         luna_pixels_format format)
{
    return count * shape->channels * shape->height * shape->width * sample_bytes(format);
}

typedef struct conversion {
    size_t channels;
    size_t pixels;
    luna_pixels_range range;
    luna_pixels_rule rule;
} conversion;

static float value_of(const conversion *c, float value)
{
    return c->rule == LUNA_PIXELS_RAW ? value : luna_pixel_unit(value, c->range);
}

static void to_planar(const conversion *c, const float *from, float *to)
{
    const size_t count = c->channels * c->pixels;
    for (size_t i = 0; i < count; i++) to[i] = value_of(c, from[i]);
}

static void to_interleaved(const conversion *c, const float *from, float *to)
{
    for (size_t i = 0; i < c->pixels; i++)
        for (size_t k = 0; k < c->channels; k++)
            to[i * c->channels + k] = value_of(c, from[k * c->pixels + i]);
}

static void to_bytes(const conversion *c, const float *from, uint8_t *to)
{
    for (size_t i = 0; i < c->pixels; i++)
        for (size_t k = 0; k < c->channels; k++)
            to[i * c->channels + k] = luna_pixel_byte(
                luna_pixel_unit(from[k * c->pixels + i], c->range), c->rule);
}

void luna_pixels_convert(const float *from, const luna_vae_shape *shape,
                         luna_pixels_range range, const luna_vae_target *target, void *to)
{
    const conversion c = {.channels = shape->channels,
                          .pixels = shape->height * shape->width,
                          .range = range,
                          .rule = target->rule};
    if (target->format == LUNA_PIXELS_F32_PLANAR) to_planar(&c, from, to);
    if (target->format == LUNA_PIXELS_F32) to_interleaved(&c, from, to);
    if (target->format == LUNA_PIXELS_U8) to_bytes(&c, from, to);
}
