#include "decoder/vae/random_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  A tensor to come: values in centre +- spread.
typedef struct planned {
    char name[96];
    size_t shape[4];
    size_t rank;
    size_t count;
    float centre;
    float spread;
} planned;

enum { TENSORS = 256, HEADER_ROOM = TENSORS * 192 };

typedef struct random_plan {
    planned tensor[TENSORS];
    size_t count;
    char header[HEADER_ROOM];
    size_t header_len;
} random_plan;

float luna_random_float(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (float)((int32_t)(*seed >> 32)) * 0x1p-31F;
}

static planned *add(random_plan *p, const char *name, const char *end,
                    const size_t *shape, size_t rank)
{
    planned *t = &p->tensor[p->count++];
    *t = (planned){.rank = rank, .count = 1};
    snprintf(t->name, sizeof t->name, "%s%s", name, end);
    for (size_t i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= shape[i];
    }
    return t;
}

typedef struct random_conv {
    size_t to;
    size_t from;
    size_t kernel;
    bool bias;
} random_conv;

//  A spread that keeps the size of the values about the same from layer to layer.
static void add_conv(random_plan *p, const char *name, random_conv c)
{
    const size_t shape[4] = {c.to, c.from, c.kernel, c.kernel};
    add(p, name, ".weight", shape, 4)->spread =
        1.5F / sqrtf((float)(c.from * c.kernel * c.kernel));
    if (c.bias) add(p, name, ".bias", shape, 1)->spread = 0.1F;
}

static void add_norm(random_plan *p, const char *name, size_t channels)
{
    planned *weight = add(p, name, ".weight", &channels, 1);
    weight->centre = 1.0F;
    weight->spread = 0.1F;
    add(p, name, ".bias", &channels, 1)->spread = 0.1F;
}

static void add_tiny_block(random_plan *p, int layer)
{
    char name[32];
    for (int i = 0; i < 5; i += 2) {
        snprintf(name, sizeof name, "%d.conv.%d", layer, i);
        add_conv(p, name, (random_conv){64, 64, 3, true});
    }
}

//  TAESD for 4-channel latents, as decoder/vae/taesd.c describes it.
static void add_taesd(random_plan *p)
{
    static const int blocks[] = {3, 4, 5, 8, 9, 10, 13, 14, 15, 18};
    const random_conv inner = {64, 64, 3, false};
    add_conv(p, "1", (random_conv){64, 4, 3, true});
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        add_tiny_block(p, blocks[i]);
    add_conv(p, "7", inner);
    add_conv(p, "12", inner);
    add_conv(p, "17", inner);
    add_conv(p, "19", (random_conv){3, 64, 3, true});
}

static void add_part(random_plan *p, const char *base, const char *part, random_conv c)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", base, part);
    if (c.kernel)
        add_conv(p, name, c);
    else
        add_norm(p, name, c.to);
}

static void add_res_block(random_plan *p, const char *base, size_t from, size_t to)
{
    add_part(p, base, "norm1", (random_conv){.to = from});
    add_part(p, base, "conv1", (random_conv){to, from, 3, true});
    add_part(p, base, "norm2", (random_conv){.to = to});
    add_part(p, base, "conv2", (random_conv){to, to, 3, true});
    if (from != to) add_part(p, base, "nin_shortcut", (random_conv){to, from, 1, true});
}

static void add_attention(random_plan *p, const char *base, size_t width)
{
    static const char *const parts[] = {"q", "k", "v", "proj_out"};
    add_part(p, base, "norm", (random_conv){.to = width});
    for (int i = 0; i < 4; i++)
        add_part(p, base, parts[i], (random_conv){width, width, 1, true});
}

typedef struct kl_size {
    size_t latent_channels;
    bool post_quant;
    size_t widths[4];  //  of the levels, the picture's first
    int levels;
    int blocks;  //  of a level
} kl_size;

static void add_level(random_plan *p, const kl_size *kl, int level, size_t from)
{
    char name[40];
    const size_t to = kl->widths[level];
    for (int i = 0; i < kl->blocks; i++) {
        snprintf(name, sizeof name, "decoder.up.%d.block.%d", level, i);
        add_res_block(p, name, i == 0 ? from : to, to);
    }
    snprintf(name, sizeof name, "decoder.up.%d.upsample.conv", level);
    if (level > 0) add_conv(p, name, (random_conv){to, to, 3, true});
}

//  As decoder/vae/kl.c describes it, in the original names.
static void add_kl(random_plan *p, const kl_size *kl)
{
    const size_t latent = kl->latent_channels;
    size_t width = kl->widths[kl->levels - 1];
    if (kl->post_quant)
        add_conv(p, "post_quant_conv", (random_conv){latent, latent, 1, true});
    add_conv(p, "decoder.conv_in", (random_conv){width, latent, 3, true});
    add_res_block(p, "decoder.mid.block_1", width, width);
    add_attention(p, "decoder.mid.attn_1", width);
    add_res_block(p, "decoder.mid.block_2", width, width);
    for (int level = kl->levels - 1; level >= 0; level--) {
        add_level(p, kl, level, width);
        width = kl->widths[level];
    }
    add_norm(p, "decoder.norm_out", width);
    add_conv(p, "decoder.conv_out", (random_conv){3, width, 3, true});
}

static luna_err plan_family(const char *family, random_plan *p)
{
    static const kl_size sd = {4, true, {128, 256, 512, 512}, 4, 3},
                         flux = {16, false, {128, 256, 512, 512}, 4, 3},
                         tiny = {4, true, {128, 128, 64}, 3, 1};
    if (strcmp(family, "taesd") == 0)
        add_taesd(p);
    else if (strcmp(family, "sd") == 0 || strcmp(family, "sdxl") == 0)
        add_kl(p, &sd);
    else if (strcmp(family, "flux") == 0)
        add_kl(p, &flux);
    else if (strcmp(family, LUNA_RANDOM_TINY) == 0)
        add_kl(p, &tiny);
    else
        return luna_error(LUNA_USAGE,
                          "--random %.40s is not offered; sd, sdxl, flux and taesd are",
                          family);
    return LUNA_OK;
}

//  One tensor's entry of the header.
static void describe(random_plan *p, const planned *t, size_t start)
{
    char sizes[96] = "";
    size_t used = 0;
    for (size_t i = 0; i < t->rank; i++)
        used += (size_t)snprintf(sizes + used, sizeof sizes - used, "%s%zu", i ? "," : "",
                                 t->shape[i]);
    p->header_len += (size_t)snprintf(
        p->header + p->header_len, HEADER_ROOM - p->header_len,
        "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
        start ? ',' : '{', t->name, sizes, start * sizeof(float),
        (start + t->count) * sizeof(float));
}

//  The header, its last brace and spaces up to where floats may lie; then the values.
static luna_err write_image(random_plan *p, void **data, size_t *len)
{
    uint64_t seed = 42;
    size_t count = 0;
    for (size_t i = 0; i < p->count; i++) {
        describe(p, &p->tensor[i], count);
        count += p->tensor[i].count;
    }
    const uint64_t header = (p->header_len + 8) / 8 * 8;
    *len = 8 + header + count * sizeof(float);
    uint8_t *image = malloc(*len);
    if (!image) return luna_error(LUNA_NO_MEMORY, "no memory for a random model");
    memcpy(image, &header, 8);
    memset(image + 8, ' ', header);
    memcpy(image + 8, p->header, p->header_len);
    image[8 + p->header_len] = '}';
    float *at = (float *)(void *)(image + 8 + header);
    for (size_t i = 0; i < p->count; i++)
        for (size_t k = 0; k < p->tensor[i].count; k++)
            *at++ = p->tensor[i].centre + p->tensor[i].spread * luna_random_float(&seed);
    *data = image;
    return LUNA_OK;
}

luna_err luna_random_model(const char *family, void **data, size_t *len)
{
    random_plan *p = calloc(1, sizeof *p);
    if (!p) return luna_error(LUNA_NO_MEMORY, "no memory for a random model");
    luna_err err = plan_family(family, p);
    if (err == LUNA_OK) err = write_image(p, data, len);
    free(p);
    return err;
}
