//  The TAESD family: tiny decoders without norms or attention
//  (github.com/madebyollin/taesd)
//
//  (latent - shift) * scale, soft clamp 3 tanh(x / 3), conv, ReLU; stages of three
//  residual blocks, nearest 2x and a conv without bias; one block; a last conv. A block
//  is ReLU(x + conv ReLU conv ReLU conv x). In TAEF2 the blocks of the first stage add W2
//  ReLU(GroupNorm(W1 x)) to x beforehand, so the whole picture is seen.
//
//  Layers are numbered as in the original's sequence: 1 conv, 3..5 blocks, 7 conv, 8..10,
//  12, 13..15, 17, 18 block, 19 conv. Files of diffusers count from one less. TAESANA has
//  five stages and widths of its own; both are read from the file.

#include "decoder/vae/builder.h"
#include "decoder/vae/family.h"
#include "decoder/vae/taesd_member.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_LAYER = 1, FIRST_BLOCK = 3, STAGE_LAYERS = 5, POOL_GROUPS = 4 };

static const float clamp_scale = 3.0F, pool_epsilon = 1e-5F;
static const float sana_scale = 0.41407F;  //  scaling_factor of dc-ae-f32c32-sana

//  Where the layers are: start + (number - less) + ...
typedef struct naming {
    const char *start;
    int less;
} naming;

static const naming namings[] = {
    {"taesd_decoder.", 0}, {"decoder.layers.", 1}, {"", 0}, {"decoder.", 0}};

typedef struct taesd {
    luna_builder b;
    char prefix[64];  //  of the checkpoint and the naming
    int less;
    int stages;
} taesd;

static int number(const taesd *t, int layer)
{
    return layer - t->less;
}

static bool has_block(const taesd *t, int layer)
{
    return luna_build_has(&t->b, "%d.conv.0.weight", number(t, layer));
}

//  Sets where the layers are, and how many stages there are.
static bool find_names(const luna_safetensors *file, taesd *out)
{
    for (size_t k = 0; k < LUNA_MODEL_PREFIXES; k++)
        for (size_t i = 0; i < sizeof namings / sizeof namings[0]; i++) {
            snprintf(out->prefix, sizeof out->prefix, "%s%s", luna_model_prefixes[k],
                     namings[i].start);
            out->b = (luna_builder){.file = file, .prefix = out->prefix};
            out->less = namings[i].less;
            if (luna_build_has(&out->b, "%d.weight", number(out, FIRST_LAYER)) &&
                has_block(out, FIRST_BLOCK))
                return true;
        }
    return false;
}

static bool fits(const luna_safetensors *file)
{
    taesd t = {0};
    return find_names(file, &t);
}

static int first_of(int stage)
{
    return FIRST_BLOCK + stage * STAGE_LAYERS;
}

//  A stage has three blocks and a convolution, and what follows the last stage one block;
//  whichever tensor is missing, the others tell.
static void count_stages(taesd *t)
{
    int first = FIRST_BLOCK;
    while (has_block(t, first + 1) || has_block(t, first + 2) ||
           luna_build_has(&t->b, "%d.weight", number(t, first + 4))) {
        t->stages++;
        first = first_of(t->stages);
    }
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
    for (int i = 0; i < t->stages; i++)
        x = stage(t, x, first_of(i), i == 0 && has_pool(t));
    x = block(t, x, first_of(t->stages));
    return luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%d",
                           number(t, first_of(t->stages) + 1));
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

//  FLUX.2's latents, of 32 channels at an eighth of the picture, travel packed as well.
static bool takes_packed(const taesd *t, const luna_model *model)
{
    return model->latent_channels == 32 && t->stages == 3;
}

//  TAESANA, the only one of five stages: 32 channels at a thirty-second.
static bool is_sana(const taesd *t, const luna_model *model)
{
    return model->latent_channels == 32 && t->stages == 5;
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

//  From the caller, else from the file, else by which member it is; stays 0 when nothing
//  tells.
static void settle_scale(const taesd *t, luna_model *model)
{
    if (model->latent_scale != 0.0F) return;
    model->latent_scale = scalar(model->file, "vae_scale", 0.0F);
    model->latent_shift = scalar(model->file, "vae_shift", 0.0F);
    if (model->latent_scale == 0.0F && takes_packed(t, model)) model->latent_scale = 1.0F;
    if (model->latent_scale == 0.0F && is_sana(t, model))
        model->latent_scale = sana_scale;
    if (model->latent_scale != 0.0F) return;
    const luna_taesd_member *member =
        luna_taesd_member_of(luna_safetensors_label(model->file), model->latent_channels);
    if (!member) return;
    model->latent_scale = member->scale;
    model->latent_shift = member->shift;
}

static void refuse_unknown_scale(taesd *t, const luna_model *model)
{
    char choices[160];
    if (model->latent_scale != 0.0F) return;
    luna_taesd_member_choices(model->latent_channels, choices, sizeof choices);
    luna_build_fail(&t->b,
                    "a TAESD decoder of %zu channels, and the file does not say for "
                    "which latents%s%s; name it after its model or set latent_scale and "
                    "latent_shift",
                    model->latent_channels, choices[0] ? ": " : "", choices);
}

//  taeqi2_1's last layer makes 2 x 2 pixels of RGBA, and its latents are scaled by
//  channel.
static void refuse_patches(taesd *t)
{
    const size_t made =
        luna_build_size(&t->b, 0, "%d.weight", number(t, first_of(t->stages) + 1));
    if (made == 12 || made == 16)
        luna_build_fail(
            &t->b,
            "a TAESD decoder whose last layer makes %zu channels, 2 x 2 pixels, "
            "as that of Qwen-Image 2.1 (taeqi2_1); Luna takes those of 3 or 4",
            made);
}

//  128 channels at half the size.
static void build_packed(taesd *t, luna_model *model)
{
    t->b.graph = &model->packed;
    model->packed_channels = 4 * model->latent_channels;
    const int x = luna_build_input(&t->b, model->packed_channels);
    decoder(t, luna_build_plain(&t->b, LUNA_OP_UNPACK, x), model);
}

static const char *variant(const taesd *t, const luna_model *model)
{
    if (takes_packed(t, model))
        return has_pool(t) ? "TAESD with pooled blocks (TAEF2)" : "TAESD for FLUX.2";
    if (t->stages > 3) return "TAESD of five stages (TAESANA)";
    return model->latent_channels == 4 ? "TAESD, TAESDXL" : "TAESD3, TAEF1";
}

static luna_err build(luna_model *model)
{
    taesd t = {0};
    if (!find_names(model->file, &t)) return LUNA_BAD_MODEL;
    t.b.graph = &model->plain;
    t.b.weights = &model->weights;
    count_stages(&t);
    refuse_patches(&t);
    model->latent_channels =
        luna_build_latent_channels(&t.b, "%d", number(&t, FIRST_LAYER));
    settle_scale(&t, model);
    decoder(&t, luna_build_input(&t.b, model->latent_channels), model);
    if (takes_packed(&t, model)) build_packed(&t, model);
    refuse_unknown_layers(&t);
    refuse_unknown_scale(&t, model);
    model->range = LUNA_RANGE_UNIT;
    model->variant = variant(&t, model);
    return t.b.err;
}

const luna_family luna_family_taesd = {.name = "taesd", .fits = fits, .build = build};
