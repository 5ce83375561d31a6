//  Decoders with seeded random weights, as a safetensors image in memory: full size and
//  topology, so that a speed can be measured without anyone's model.

#include "decoder/vae/tool/tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct image {
    char header[32768];
    size_t used;
    float *values;
    size_t count;
    size_t room;
    uint64_t seed;
    bool failed;
} image;

float tool_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (float)((int32_t)(*seed >> 32)) * 0x1p-31F;
}

static void announce(image *m, const char *name, const size_t *shape, size_t rank,
                     size_t count)
{
    char sizes[64] = "";
    size_t used = 0;
    for (size_t i = 0; i < rank; i++)
        used += (size_t)snprintf(sizes + used, sizeof sizes - used, "%s%zu", i ? "," : "",
                                 shape[i]);
    const int n =
        snprintf(m->header + m->used, sizeof m->header - m->used,
                 "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                 m->used ? ',' : '{', name, sizes, m->count * sizeof(float),
                 (m->count + count) * sizeof(float));
    if (n < 0 || (size_t)n >= sizeof m->header - m->used) m->failed = true;
    if (!m->failed) m->used += (size_t)n;
}

static void add(image *m, const char *name, const size_t *shape, size_t rank,
                float spread)
{
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) count *= shape[i];
    announce(m, name, shape, rank, count);
    if (m->count + count > m->room) {
        const size_t room = 2 * (m->count + count);
        float *larger = realloc(m->values, room * sizeof *larger);
        if (!larger) m->failed = true;
        if (larger) m->values = larger;
        if (larger) m->room = room;
    }
    for (size_t i = 0; i < count && !m->failed; i++)
        m->values[m->count++] = spread * tool_random(&m->seed);
}

//  A spread that keeps the size of the values about the same from layer to layer.
static void add_conv(image *m, const char *name, const size_t shape[4], bool bias)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    add(m, full, shape, 4, 1.5F / sqrtf((float)(shape[1] * shape[2] * shape[3])));
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) add(m, full, shape, 1, 0.1F);
}

static void add_block(image *m, int layer)
{
    char name[32];
    const size_t inner[4] = {64, 64, 3, 3};
    for (int i = 0; i < 5; i += 2) {
        snprintf(name, sizeof name, "%d.conv.%d", layer, i);
        add_conv(m, name, inner, true);
    }
}

//  TAESD for 4-channel latents, as decoder/vae/taesd.c describes it.
static void add_taesd(image *m)
{
    const size_t first[4] = {64, 4, 3, 3}, inner[4] = {64, 64, 3, 3},
                 last[4] = {3, 64, 3, 3};
    static const int blocks[] = {3, 4, 5, 8, 9, 10, 13, 14, 15, 18};
    add_conv(m, "1", first, true);
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) add_block(m, blocks[i]);
    add_conv(m, "7", inner, false);
    add_conv(m, "12", inner, false);
    add_conv(m, "17", inner, false);
    add_conv(m, "19", last, true);
}

static luna_err assemble(const image *m, void **data, size_t *len)
{
    const uint64_t header = m->used + 1;
    const size_t bytes = m->count * sizeof(float);
    uint8_t *all = malloc(8 + header + bytes);
    if (!all) return luna_error(LUNA_NO_MEMORY, "no memory for a random model");
    memcpy(all, &header, 8);
    memcpy(all + 8, m->header, m->used);
    all[8 + m->used] = '}';
    memcpy(all + 8 + header, m->values, bytes);
    *data = all;
    *len = 8 + header + bytes;
    return LUNA_OK;
}

luna_err tool_random_model(const char *family, void **data, size_t *len)
{
    if (strcmp(family, "taesd") != 0)
        return luna_error(LUNA_USAGE, "--random %.40s is not offered; taesd is", family);
    image *m = calloc(1, sizeof *m);
    if (!m) return luna_error(LUNA_NO_MEMORY, "no memory for a random model");
    m->seed = 42;
    add_taesd(m);
    const luna_err err = m->failed
                             ? luna_error(LUNA_NO_MEMORY, "no memory for a random model")
                             : assemble(m, data, len);
    free(m->values);
    free(m);
    return err;
}
