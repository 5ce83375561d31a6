//  The KL family: the decoders of Stable Diffusion, SDXL, SD3, FLUX and their kin
//  (Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022)
//
//  A 1x1 convolution where the file has one, a convolution, residual block, attention,
//  residual block; levels of residual blocks with nearest 2x and a convolution between
//  them; group norm, SiLU and a last convolution. A residual block is x + conv SiLU norm
//  conv SiLU norm x, with a 1x1 convolution of x where the width changes. Widths, the
//  number of levels and of blocks are the file's.
//
//  FLUX.2's latents travel packed and standardised by a batch norm, which is undone here:
//  [N, 128, H, W] to [N, 32, 2H, 2W]. Its 32-channel latents are taken as they are.

#include "decoder/vae/builder.h"
#include "decoder/vae/family.h"

#include <stdio.h>

enum { GROUPS = 32, NAME_ROOM = 128 };

static const float epsilon = 1e-6F, batch_epsilon = 1e-4F;

//  Of the attention.
typedef struct part_names {
    const char *norm, *q, *k, *v, *out;
} part_names;

typedef struct naming {
    const char *middle[2];  //  residual blocks
    const char *attention;
    part_names parts[2];  //  now, and in old files; NULLs where there is but one way
    const char *up;       //  + level + "." + block + number
    const char *block;
    const char *upsample;
    const char *shortcut;
    const char *norm_out;
    bool from_picture;  //  levels are numbered from the picture's side
} naming;

static const naming original = {
    .middle = {"decoder.mid.block_1", "decoder.mid.block_2"},
    .attention = "decoder.mid.attn_1",
    .parts = {{"norm", "q", "k", "v", "proj_out"}},
    .up = "decoder.up.",
    .block = "block.",
    .upsample = "upsample.conv",
    .shortcut = "nin_shortcut",
    .norm_out = "decoder.norm_out",
    .from_picture = true,
};

static const naming diffusers = {
    .middle = {"decoder.mid_block.resnets.0", "decoder.mid_block.resnets.1"},
    .attention = "decoder.mid_block.attentions.0",
    .parts = {{"group_norm", "to_q", "to_k", "to_v", "to_out.0"},
              {"group_norm", "query", "key", "value", "proj_attn"}},
    .up = "decoder.up_blocks.",
    .block = "resnets.",
    .upsample = "upsamplers.0.conv",
    .shortcut = "conv_shortcut",
    .norm_out = "decoder.conv_norm_out",
};

typedef struct kl {
    luna_builder b;
    const naming *names;
    const part_names *parts;
    int levels;
    int blocks;  //  of a level
} kl;

static bool is_named(const kl *k, const naming *names)
{
    return luna_build_has(&k->b, "decoder.conv_in.weight") &&
           luna_build_has(&k->b, "%s.norm1.weight", names->middle[0]);
}

//  The old names where they are there: with neither, the missing ones are today's.
static const part_names *parts_of(const kl *k)
{
    const part_names *old = &k->names->parts[1];
    const bool is_old =
        old->q && luna_build_has_layer(&k->b, "%s.%s", k->names->attention, old->q);
    return is_old ? old : &k->names->parts[0];
}

static bool find_names(const luna_safetensors *file, kl *out)
{
    for (size_t i = 0; i < LUNA_MODEL_PREFIXES; i++) {
        out->b = (luna_builder){.file = file, .prefix = luna_model_prefixes[i]};
        out->names = is_named(out, &original) ? &original : &diffusers;
        out->parts = parts_of(out);
        if (is_named(out, out->names)) return true;
    }
    return false;
}

static bool fits(const luna_safetensors *file)
{
    kl k;
    return find_names(file, &k);
}

//  The number that the file gives to the level executed as the `level`-th.
static int number(const kl *k, int level)
{
    return k->names->from_picture ? k->levels - 1 - level : level;
}

//  Whichever of its tensors is missing, the others tell.
static bool has_block(const kl *k, int level, int block)
{
    static const char *const parts[] = {"norm1", "conv1", "conv2"};
    for (int i = 0; i < 3; i++)
        if (luna_build_has(&k->b, "%s%d.%s%d.%s.weight", k->names->up, level,
                           k->names->block, block, parts[i]))
            return true;
    return false;
}

static void count_levels(kl *k)
{
    while (has_block(k, k->levels, 0)) k->levels++;
    while (has_block(k, 0, k->blocks)) k->blocks++;
    if (k->levels == 0)
        luna_build_fail(&k->b, "the tensor '%s%s0.%s0.norm1.weight' is missing",
                        k->b.prefix, k->names->up, k->names->block);
}

//  Norm, SiLU and convolution.
static int half_block(luna_builder *b, int x, const char *base, int half)
{
    x = luna_build_group_norm(b, x, GROUPS, epsilon, "%s.norm%d", base, half);
    x = luna_build_plain(b, LUNA_OP_SILU, x);
    return luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%s.conv%d", base, half);
}

static int res_block(kl *k, int x, const char *base)
{
    luna_builder *b = &k->b;
    const int y = half_block(b, half_block(b, x, base, 1), base, 2);
    if (luna_build_has_layer(b, "%s.%s", base, k->names->shortcut))
        x = luna_build_conv(b, x, 1, LUNA_WITH_BIAS, "%s.%s", base, k->names->shortcut);
    return luna_build_add(b, y, x);
}

static int project(kl *k, int x, const char *which)
{
    return luna_build_conv(&k->b, x, 1, LUNA_WITH_BIAS, "%s.%s", k->names->attention,
                           which);
}

static int attention(kl *k, int x)
{
    const part_names *parts = k->parts;
    const int norm = luna_build_group_norm(&k->b, x, GROUPS, epsilon, "%s.%s",
                                           k->names->attention, parts->norm);
    const int q = project(k, norm, parts->q);
    const int key = project(k, norm, parts->k);
    const int v = project(k, norm, parts->v);
    const int y = project(k, luna_build_attention(&k->b, q, key, v), parts->out);
    return luna_build_add(&k->b, y, x);
}

static int level(kl *k, int x, int at)
{
    char base[NAME_ROOM];
    const naming *names = k->names;
    for (int i = 0; i < k->blocks; i++) {
        snprintf(base, sizeof base, "%s%d.%s%d", names->up, number(k, at), names->block,
                 i);
        x = res_block(k, x, base);
    }
    if (at == k->levels - 1) return x;
    x = luna_build_plain(&k->b, LUNA_OP_UPSAMPLE, x);
    return luna_build_conv(&k->b, x, 3, LUNA_WITH_BIAS, "%s%d.%s", names->up,
                           number(k, at), names->upsample);
}

//  NULL when there is none. FLUX.2's own files keep it below "decoder.".
static const char *post_quant(const kl *k)
{
    static const char *const names[] = {"post_quant_conv", "decoder.post_quant_conv"};
    for (int i = 0; i < 2; i++)
        if (luna_build_has_layer(&k->b, "%s", names[i])) return names[i];
    return NULL;
}

static size_t latent_channels(kl *k)
{
    const char *first = post_quant(k);
    return luna_build_latent_channels(&k->b, "%s", first ? first : "decoder.conv_in");
}

static int decoder(kl *k, int x, const luna_model *model)
{
    luna_builder *b = &k->b;
    x = luna_build_affine(b, x, model->latent_scale, model->latent_shift);
    if (post_quant(k)) x = luna_build_conv(b, x, 1, LUNA_WITH_BIAS, "%s", post_quant(k));
    x = luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "decoder.conv_in");
    x = res_block(k, x, k->names->middle[0]);
    x = attention(k, x);
    x = res_block(k, x, k->names->middle[1]);
    for (int i = 0; i < k->levels; i++) x = level(k, x, i);
    x = luna_build_group_norm(b, x, GROUPS, epsilon, "%s", k->names->norm_out);
    x = luna_build_plain(b, LUNA_OP_SILU, x);
    return luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "decoder.conv_out");
}

static bool has_batch_norm(const kl *k)
{
    return luna_build_has(&k->b, "bn.running_mean") ||
           luna_build_has(&k->b, "bn.running_var");
}

static void build_packed(kl *k, luna_model *model)
{
    luna_builder *b = &k->b;
    b->graph = &model->packed;
    model->packed_channels = 4 * model->latent_channels;
    int x = luna_build_input(b, model->packed_channels);
    x = luna_build_batch_norm_inverse(b, x, batch_epsilon, "bn");
    decoder(k, luna_build_plain(b, LUNA_OP_UNPACK, x), model);
}

static const char *variant(const kl *k, const luna_model *model)
{
    const size_t width = luna_build_size(&k->b, 0, "decoder.conv_in.weight");
    if (has_batch_norm(k)) return width < 512 ? "FLUX.2, small decoder" : "FLUX.2";
    if (k->levels == 3) return "KL of three levels (x4 upscaler)";
    if (model->latent_channels == 4) return "KL of 4 channels (SD 1, SD 2, SDXL)";
    if (model->latent_channels == 16) return "KL of 16 channels (SD 3, FLUX.1)";
    return "KL";
}

static luna_err build(luna_model *model)
{
    kl k = {0};
    if (!find_names(model->file, &k)) return LUNA_BAD_MODEL;
    k.b.graph = &model->plain;
    k.b.weights = &model->weights;
    count_levels(&k);
    if (model->latent_scale == 0.0F) model->latent_scale = 1.0F;
    model->latent_channels = latent_channels(&k);
    decoder(&k, luna_build_input(&k.b, model->latent_channels), model);
    if (has_batch_norm(&k)) build_packed(&k, model);
    luna_build_refuse_others(&k.b, "decoder.");
    model->range = LUNA_RANGE_SIGNED;
    model->variant = variant(&k, model);
    return k.b.err;
}

const luna_family luna_family_kl = {.name = "kl", .fits = fits, .build = build};
