//  The Wan 2.1 VAE, which Qwen-Image has too, for single pictures
//  (Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025)
//
//  A decoder of videos whose convolutions look back in time only. Of a first frame they
//  see two frames of zeros and the frame itself, so that only the last slice in time of a
//  kernel acts and a picture needs convolutions in the plane; the convolutions in time of
//  the upsampling do nothing to a first frame.
//
//  1x1 convolution, convolution, residual block, attention, residual block; stages of
//  residual blocks with nearest 2x and a convolution between them; norm, SiLU and a last
//  convolution. Norms are RMS norms over the channels of a pixel.

#include "decoder/vae/builder.h"
#include "decoder/vae/family.h"

#include <stdio.h>
#include <string.h>

enum { NAME_ROOM = 128 };

static const float epsilon = 1e-12F;

typedef struct naming {
    const char *post_quant;
    const char *conv_in;
    const char *middle[2];  //  residual blocks
    const char *attention;
    const char *norm[2], *conv[2], *shortcut;  //  of a residual block
    const char *norm_out;
    const char *conv_out;
    bool flat;  //  blocks and upsamplings are numbered in one sequence
} naming;

static const naming namings[] = {
    {.post_quant = "conv2",
     .conv_in = "decoder.conv1",
     .middle = {"decoder.middle.0", "decoder.middle.2"},
     .attention = "decoder.middle.1",
     .norm = {"residual.0", "residual.3"},
     .conv = {"residual.2", "residual.6"},
     .shortcut = "shortcut",
     .norm_out = "decoder.head.0",
     .conv_out = "decoder.head.2",
     .flat = true},
    {.post_quant = "post_quant_conv",
     .conv_in = "decoder.conv_in",
     .middle = {"decoder.mid_block.resnets.0", "decoder.mid_block.resnets.1"},
     .attention = "decoder.mid_block.attentions.0",
     .norm = {"norm1", "norm2"},
     .conv = {"conv1", "conv2"},
     .shortcut = "conv_shortcut",
     .norm_out = "decoder.norm_out",
     .conv_out = "decoder.conv_out"},
};

typedef struct wan {
    luna_builder b;
    const naming *names;
} wan;

static bool find_names(const luna_safetensors *file, wan *out)
{
    for (size_t k = 0; k < LUNA_MODEL_PREFIXES; k++)
        for (size_t i = 0; i < sizeof namings / sizeof namings[0]; i++) {
            out->names = &namings[i];
            out->b = (luna_builder){
                .file = file, .prefix = luna_model_prefixes[k], .temporal = true};
            if (luna_build_has(&out->b, "%s.%s.gamma", out->names->middle[0],
                               out->names->norm[0]))
                return true;
        }
    return false;
}

static bool fits(const luna_safetensors *file)
{
    wan w;
    return find_names(file, &w);
}

//  Norm, SiLU and convolution.
static int half_block(wan *w, int x, const char *base, int half)
{
    luna_builder *b = &w->b;
    x = luna_build_rms_norm(b, x, epsilon, "%s.%s", base, w->names->norm[half]);
    x = luna_build_plain(b, LUNA_OP_SILU, x);
    return luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%s.%s", base, w->names->conv[half]);
}

static int res_block(wan *w, int x, const char *base)
{
    luna_builder *b = &w->b;
    const int y = half_block(w, half_block(w, x, base, 0), base, 1);
    if (luna_build_has_layer(b, "%s.%s", base, w->names->shortcut))
        x = luna_build_conv(b, x, 1, LUNA_WITH_BIAS, "%s.%s", base, w->names->shortcut);
    return luna_build_add(b, y, x);
}

//  One kernel makes q, k and v.
static int attention(wan *w, int x)
{
    luna_builder *b = &w->b;
    const char *base = w->names->attention;
    int part[3];
    const int norm = luna_build_rms_norm(b, x, epsilon, "%s.norm", base);
    for (int i = 0; i < 3; i++) {
        const luna_part third = {.index = (size_t)i, .count = 3};
        part[i] = luna_build_conv_part(b, norm, third, "%s.to_qkv", base);
    }
    int y = luna_build_attention(b, part[0], part[1], part[2]);
    y = luna_build_conv(b, y, 1, LUNA_WITH_BIAS, "%s.proj", base);
    return luna_build_add(b, y, x);
}

static int upsample(wan *w, int x, const char *base)
{
    x = luna_build_plain(&w->b, LUNA_OP_UPSAMPLE, x);
    return luna_build_conv(&w->b, x, 3, LUNA_WITH_BIAS, "%s.resample.1", base);
}

static bool has_res_block(const wan *w, const char *base)
{
    return luna_build_has_layer(&w->b, "%s.%s", base, w->names->conv[0]) ||
           luna_build_has_layer(&w->b, "%s.%s", base, w->names->conv[1]);
}

static bool has_upsample(const wan *w, const char *base)
{
    return luna_build_has_layer(&w->b, "%s.resample.1", base);
}

//  decoder.upsamples.0, 1, ...: whatever comes next.
static int flat_stages(wan *w, int x)
{
    char base[NAME_ROOM];
    for (int i = 0; w->b.err == LUNA_OK; i++) {
        snprintf(base, sizeof base, "decoder.upsamples.%d", i);
        if (has_res_block(w, base))
            x = res_block(w, x, base);
        else if (has_upsample(w, base))
            x = upsample(w, x, base);
        else
            break;
    }
    return x;
}

static int stage(wan *w, int x, int number)
{
    char base[NAME_ROOM];
    for (int i = 0; w->b.err == LUNA_OK; i++) {
        snprintf(base, sizeof base, "decoder.up_blocks.%d.resnets.%d", number, i);
        if (!has_res_block(w, base)) break;
        x = res_block(w, x, base);
    }
    snprintf(base, sizeof base, "decoder.up_blocks.%d.upsamplers.0", number);
    return has_upsample(w, base) ? upsample(w, x, base) : x;
}

static int nested_stages(wan *w, int x)
{
    char base[NAME_ROOM];
    for (int i = 0; w->b.err == LUNA_OK; i++) {
        snprintf(base, sizeof base, "decoder.up_blocks.%d.resnets.0", i);
        if (!has_res_block(w, base)) break;
        x = stage(w, x, i);
    }
    return x;
}

static void decoder(wan *w, int x)
{
    luna_builder *b = &w->b;
    const naming *names = w->names;
    x = luna_build_conv(b, x, 1, LUNA_WITH_BIAS, "%s", names->post_quant);
    x = luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%s", names->conv_in);
    x = res_block(w, x, names->middle[0]);
    x = attention(w, x);
    x = res_block(w, x, names->middle[1]);
    x = names->flat ? flat_stages(w, x) : nested_stages(w, x);
    x = luna_build_rms_norm(b, x, epsilon, "%s", names->norm_out);
    x = luna_build_plain(b, LUNA_OP_SILU, x);
    luna_build_conv(b, x, 3, LUNA_WITH_BIAS, "%s", names->conv_out);
}

//  All below "decoder." but the convolutions in time.
static void refuse_others(wan *w)
{
    const luna_safetensors *file = w->b.file;
    const size_t skip = strlen(w->b.prefix);
    for (size_t i = 0; i < luna_safetensors_count(file); i++) {
        const char *name = luna_safetensors_at(file, i)->name;
        if (strncmp(name, w->b.prefix, skip) != 0) continue;
        if (strncmp(name + skip, "decoder.", 8) != 0 || strstr(name, ".time_conv."))
            continue;
        luna_build_refuse_other(&w->b, name);
    }
}

//  Wan 2.2's and Qwen-Image 2.1's have the same names, another latent, and stages with
//  shortcuts around them.
static void refuse_patches(wan *w)
{
    const size_t made = luna_build_size(&w->b, 0, "%s.weight", w->names->conv_out);
    if (made == 12 || made == 16)
        luna_build_fail(
            &w->b,
            "the VAE of Wan 2.2 or Qwen-Image 2.1 (its last layer makes %zu "
            "channels, 2 x 2 pixels); Luna decodes Wan 2.1's and Qwen-Image's",
            made);
}

static luna_err build(luna_model *model)
{
    wan w = {0};
    if (!find_names(model->file, &w)) return LUNA_BAD_MODEL;
    w.b.graph = &model->plain;
    w.b.weights = &model->weights;
    refuse_patches(&w);
    if (model->latent_scale == 0.0F) model->latent_scale = 1.0F;
    model->latent_channels = luna_build_latent_channels(&w.b, "%s", w.names->post_quant);
    const int input = luna_build_input(&w.b, model->latent_channels);
    decoder(&w, luna_build_affine(&w.b, input, model->latent_scale, model->latent_shift));
    refuse_others(&w);
    model->range = LUNA_RANGE_SIGNED;
    model->latent_rank = 5;
    model->variant = "Wan 2.1, Qwen-Image: single pictures";
    return w.b.err;
}

const luna_family luna_family_wan = {.name = "wan", .fits = fits, .build = build};
