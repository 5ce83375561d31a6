//  The TAESD family: tiny decoders without norms or attention
//  (github.com/madebyollin/taesd)
//
//  (latent - shift) * scale, soft clamp 3 tanh(x / 3), conv, ReLU; three stages of three
//  residual blocks, nearest 2x and a conv without bias; one block; a last conv. A block
//  is ReLU(x + conv ReLU conv ReLU conv x). In TAEF2 the blocks of the first stage add W2
//  ReLU(GroupNorm(W1 x)) to x beforehand, so the whole picture is seen.
//
//  Layers are numbered as in the original's sequence: 1 conv, 3..5 blocks, 7 conv, 8..10,
//  12, 13..15, 17, 18 block, 19 conv. Files of diffusers count from one less.

#include "decoder/vae/builder.h"
#include "decoder/vae/family.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { FIRST_LAYER = 1, LAST_LAYER = 19, POOL_GROUPS = 4 };

static const float clamp_scale = 3.0F, pool_epsilon = 1e-5F;

//  Where the layers are: prefix + (number - less) + ...
typedef struct naming {
    const char *prefix;
    int less;
} naming;

static const naming namings[] = {
    {"taesd_decoder.", 0}, {"decoder.layers.", 1}, {"", 0}, {"decoder.", 0}};

typedef struct taesd {
    luna_builder b;
    int less;
} taesd;

static int number(const taesd *t, int layer)
{
    return layer - t->less;
}

static const naming *naming_of(const luna_safetensors *file)
{
    for (size_t i = 0; i < sizeof namings / sizeof namings[0]; i++) {
        const luna_builder b = {.file = file, .prefix = namings[i].prefix};
        const int less = namings[i].less;
        if (luna_build_has(&b, "%d.weight", FIRST_LAYER - less) &&
            luna_build_has(&b, "%d.conv.0.weight", 3 - less))
            return &namings[i];
    }
    return NULL;
}

static bool fits(const luna_safetensors *file)
{
    return naming_of(file) != NULL;
}

static bool has_pool(const taesd *t)
{
    for (int layer = 3; layer <= 5; layer++)
        for (int part = 0; part <= 3; part++)
            if (luna_build_has(&t->b, "%d.pool.%d.weight", number(t, layer), part))
                return true;
    return false;
}

static int pool(taesd *t, int x, int layer)
{
    luna_builder *b = &t->b;
    const int n = number(t, layer);
    int y = luna_build_conv(b, x, 1, LUNA_WITHOUT_BIAS, "%d.pool.0", n);
    y = luna_build_group_norm(b, y, POOL_GROUPS, pool_epsilon, "%d.pool.1", n);
    y = luna_build_plain(b, LUNA_OP_RELU, y);
    y = luna_build_conv(b, y, 1, LUNA_WITHOUT_BIAS, "%d.pool.3", n);
    return luna_build_add(b, y, x);
}

static int block(taesd *t, int x, int layer)
{
    luna_builder *b = &t->b;
    const int n = number(t, layer);
    int y = luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%d.conv.0", n);
    y = luna_build_plain(b, LUNA_OP_RELU, y);
    y = luna_build_conv(b, y, 3, LUNA_WITH_BIAS, "%d.conv.2", n);
    y = luna_build_plain(b, LUNA_OP_RELU, y);
    y = luna_build_conv(b, y, 3, LUNA_WITH_BIAS, "%d.conv.4", n);
    if (luna_build_has(b, "%d.skip.weight", n))
        x = luna_build_conv(b, x, 1, LUNA_WITHOUT_BIAS, "%d.skip", n);
    return luna_build_plain(b, LUNA_OP_RELU, luna_build_add(b, y, x));
}

//  Three blocks, then nearest 2x and the conv after it; `first` is the first block's
//  layer.
static int stage(taesd *t, int x, int first, bool pooled)
{
    for (int i = 0; i < 3; i++) {
        if (pooled) x = pool(t, x, first + i);
        x = block(t, x, first + i);
    }
    x = luna_build_plain(&t->b, LUNA_OP_UPSAMPLE, x);
    return luna_build_conv(&t->b, x, 3, LUNA_WITHOUT_BIAS, "%d", number(t, first + 4));
}

static int decoder(taesd *t, int x, const luna_model *model)
{
    luna_builder *b = &t->b;
    x = luna_build_affine(b, x, model->latent_scale, model->latent_shift);
    x = luna_build_tanh_clamp(b, x, clamp_scale);
    x = luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%d", number(t, FIRST_LAYER));
    x = luna_build_plain(b, LUNA_OP_RELU, x);
    x = stage(t, x, 3, has_pool(t));
    x = stage(t, x, 8, false);
    x = stage(t, x, 13, false);
    x = block(t, x, 18);
    return luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%d", number(t, LAST_LAYER));
}

//  A layer of the file that this architecture does not have means another architecture,
//  whose pictures would come out wrong without a word.
static void refuse_unknown_layers(taesd *t)
{
    const size_t skip = strlen(t->b.prefix);
    for (size_t i = 0; i < luna_safetensors_count(t->b.file); i++) {
        const char *name = luna_safetensors_at(t->b.file, i)->name;
        if (strncmp(name, t->b.prefix, skip) != 0) continue;
        if (name[skip] < '0' || name[skip] > '9') continue;
        luna_build_refuse_other(&t->b, name);
    }
}

//  ComfyUI's combined files carry the two numbers as scalars.
static float scalar(const luna_safetensors *file, const char *name, float otherwise)
{
    float value;
    const luna_tensor *tensor = luna_safetensors_find(file, name);
    if (!tensor || tensor->count != 1) return otherwise;
    if (luna_dtype_to_float(tensor->dtype, tensor->data, 1, &value) != LUNA_OK)
        return otherwise;
    return isfinite(value) ? value : otherwise;
}

static void settle_scale(luna_model *model)
{
    if (model->latent_scale != 0.0F) return;
    model->latent_scale = scalar(model->file, "vae_scale", 1.0F);
    model->latent_shift = scalar(model->file, "vae_shift", 0.0F);
    if (model->latent_scale == 0.0F) model->latent_scale = 1.0F;
}

//  FLUX.2's latents, the only ones of 32 channels, travel packed: 128 at half the size.
static void build_packed(taesd *t, luna_model *model)
{
    t->b.graph = &model->packed;
    model->packed_channels = 4 * model->latent_channels;
    const int x = luna_build_input(&t->b, model->packed_channels);
    decoder(t, luna_build_plain(&t->b, LUNA_OP_UNPACK, x), model);
}

static luna_err build(luna_model *model)
{
    const naming *names = naming_of(model->file);
    assert(names);  //  build follows fits
    taesd t = {.b = {.file = model->file,
                     .prefix = names->prefix,
                     .graph = &model->plain,
                     .weights = &model->weights},
               .less = names->less};
    settle_scale(model);
    model->latent_channels =
        luna_build_size(&t.b, 1, "%d.weight", number(&t, FIRST_LAYER));
    if (model->latent_channels == 0)
        luna_build_fail(&t.b, "the tensor '%s%d.weight' has no input channels",
                        names->prefix, number(&t, FIRST_LAYER));
    decoder(&t, luna_build_input(&t.b, model->latent_channels), model);
    if (model->latent_channels == 32) build_packed(&t, model);
    refuse_unknown_layers(&t);
    model->spatial_factor = 8;
    model->range = LUNA_RANGE_UNIT;
    model->variant = has_pool(&t) ? "TAESD with pooled blocks (TAEF2)" : "TAESD";
    return t.b.err;
}

const luna_family luna_family_taesd = {.name = "taesd", .fits = fits, .build = build};
