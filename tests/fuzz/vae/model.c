//  model.c - a VAE file of a real family, damaged, as a model
//
//  A small decoder of one family and key style is written down tensor by tensor, changed
//  by a few steps, and made a file. What opens decodes; what does not is told in one
//  sentence.

#include "common/dtype.h"
#include "decoder/vae/vae.h"
#include "fuzz/fuzz.h"

#include <math.h>

enum { ENTRIES = 192, NAME_ROOM = 96, BODY_MAX = 4 << 20, HEADER_ROOM = ENTRIES * 256 };

typedef struct entry {
    char name[NAME_ROOM];
    size_t shape[8];
    size_t rank;
    const char *dtype;
    size_t size;  //  bytes of a value
} entry;

typedef struct model {
    entry item[ENTRIES];
    size_t count;
} model;

//  ---- the families ----------------------------------------------------------------

static entry *put(model *m, const char *base, const char *end, size_t rank)
{
    entry *e = &m->item[m->count++];
    CHECK(m->count < ENTRIES - 8);
    *e = (entry){.rank = rank, .dtype = "F16", .size = 2};
    snprintf(e->name, sizeof e->name, "%s%s", base, end);
    return e;
}

static void vector(model *m, const char *base, const char *end, size_t channels)
{
    put(m, base, end, 1)->shape[0] = channels;
}

//  A kernel of `rank` dimensions: 2, 4, or 5 with three slices in time.
static void conv(model *m, const char *base, size_t to, size_t from, size_t kernel,
                 size_t rank)
{
    entry *e = put(m, base, ".weight", rank);
    const size_t flat[] = {to, from, kernel, kernel},
                 deep[] = {to, from, kernel, kernel, kernel};
    memcpy(e->shape, rank == 5 ? deep : flat, rank * sizeof e->shape[0]);
    vector(m, base, ".bias", to);
}

static const char *join(char out[NAME_ROOM], const char *base, const char *part)
{
    snprintf(out, NAME_ROOM, "%s.%s", base, part);
    return out;
}

static void norm(model *m, const char *base, size_t channels)
{
    vector(m, base, ".weight", channels);
    vector(m, base, ".bias", channels);
}

static void kl_block(model *m, const char *base, size_t from, bool diffusers)
{
    char name[NAME_ROOM];
    const size_t to = 32;
    norm(m, join(name, base, "norm1"), from);
    conv(m, join(name, base, "conv1"), to, from, 3, 4);
    norm(m, join(name, base, "norm2"), to);
    conv(m, join(name, base, "conv2"), to, to, 3, 4);
    if (from != to)
        conv(m, join(name, base, diffusers ? "conv_shortcut" : "nin_shortcut"), to, from,
             1, 4);
}

static void kl_attention(model *m, const char *base, const char *const parts[5],
                         bool diffusers)
{
    char name[NAME_ROOM];
    norm(m, join(name, base, parts[0]), 32);
    for (int i = 1; i < 5; i++)
        conv(m, join(name, base, parts[i]), 32, 32, 1, diffusers ? 2 : 4);
}

static void kl_levels(model *m, int levels, bool diffusers)
{
    char name[NAME_ROOM];
    for (int level = 0; level < levels; level++) {
        const int number = diffusers ? level : levels - 1 - level;
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "decoder.%s.%d.%s.%d",
                     diffusers ? "up_blocks" : "up", number,
                     diffusers ? "resnets" : "block", i);
            kl_block(m, name, 32, diffusers);
        }
        snprintf(name, sizeof name, "decoder.%s.%d.%s.conv",
                 diffusers ? "up_blocks" : "up", number,
                 diffusers ? "upsamplers.0" : "upsample");
        if (level < levels - 1) conv(m, name, 32, 32, 3, 4);
    }
}

//  Of two levels, so that a decode is quick; the third style is FLUX.2.
static void kl(model *m, int style)
{
    static const char *const parts[3][5] = {
        {"norm", "q", "k", "v", "proj_out"},
        {"group_norm", "to_q", "to_k", "to_v", "to_out.0"},
        {"group_norm", "query", "key", "value", "proj_attn"}};
    const bool diffusers = style > 0;
    const size_t channels = style == 2 ? 32 : 4;
    conv(m, "post_quant_conv", channels, channels, 1, 4);
    conv(m, "decoder.conv_in", 32, channels, 3, 4);
    kl_block(m, diffusers ? "decoder.mid_block.resnets.0" : "decoder.mid.block_1", 32,
             diffusers);
    kl_block(m, diffusers ? "decoder.mid_block.resnets.1" : "decoder.mid.block_2", 32,
             diffusers);
    kl_attention(m, diffusers ? "decoder.mid_block.attentions.0" : "decoder.mid.attn_1",
                 parts[style], diffusers);
    kl_levels(m, 2, diffusers);
    norm(m, diffusers ? "decoder.conv_norm_out" : "decoder.norm_out", 32);
    conv(m, "decoder.conv_out", 3, 32, 3, 4);
    if (style != 2) return;
    vector(m, "bn", ".running_mean", 128);
    vector(m, "bn", ".running_var", 128);
}

static void tiny_block(model *m, const char *start, int number)
{
    char name[NAME_ROOM];
    for (int i = 0; i < 5; i += 2) {
        snprintf(name, sizeof name, "%s%d.conv.%d", start, number, i);
        conv(m, name, 6, 6, 3, 4);
    }
}

static void tiny_conv(model *m, const char *start, int number, size_t to, size_t from)
{
    char name[NAME_ROOM];
    snprintf(name, sizeof name, "%s%d", start, number);
    conv(m, name, to, from, 3, 4);
}

static void taesd(model *m, const char *start, int less, size_t channels)
{
    int layer = 3 - less;
    tiny_conv(m, start, 1 - less, 6, channels);
    for (int stage = 0; stage < 3; stage++, layer += 5) {
        for (int i = 0; i < 3; i++) tiny_block(m, start, layer + i);
        tiny_conv(m, start, layer + 4, 6, 6);
        m->count--;  //  no bias
    }
    tiny_block(m, start, layer);
    tiny_conv(m, start, layer + 1, 3, 6);
}

static void gamma_of(model *m, const char *base, size_t ones)
{
    entry *e = put(m, base, ".gamma", 1 + ones);
    e->shape[0] = 8;
    for (size_t i = 1; i <= ones; i++) e->shape[i] = 1;
}

static void wan_block(model *m, const char *base)
{
    char name[NAME_ROOM];
    gamma_of(m, join(name, base, "residual.0"), 3);
    conv(m, join(name, base, "residual.2"), 8, 8, 3, 5);
    gamma_of(m, join(name, base, "residual.3"), 3);
    conv(m, join(name, base, "residual.6"), 8, 8, 3, 5);
}

static void wan(model *m)
{
    conv(m, "conv2", 4, 4, 1, 5);
    conv(m, "decoder.conv1", 8, 4, 3, 5);
    wan_block(m, "decoder.middle.0");
    gamma_of(m, "decoder.middle.1.norm", 2);
    conv(m, "decoder.middle.1.to_qkv", 24, 8, 1, 4);
    conv(m, "decoder.middle.1.proj", 8, 8, 1, 4);
    wan_block(m, "decoder.middle.2");
    wan_block(m, "decoder.upsamples.0");
    conv(m, "decoder.upsamples.1.resample.1", 8, 8, 3, 4);
    conv(m, "decoder.upsamples.1.time_conv", 16, 8, 1, 5);
    wan_block(m, "decoder.upsamples.2");
    gamma_of(m, "decoder.head.0", 3);
    conv(m, "decoder.head.2", 3, 8, 3, 5);
}

static void write_down(model *m, uint64_t family)
{
    if (family < 3) kl(m, (int)family);
    if (family == 3) taesd(m, "", 0, 4);
    if (family == 4) taesd(m, "taesd_decoder.", 0, 32);
    if (family == 5) taesd(m, "decoder.layers.", 1, 16);
    if (family == 6) wan(m);
}

//  ---- damage ----------------------------------------------------------------------

static void change_shape(entry *e, fuzz_bytes *from)
{
    static const size_t sizes[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   5,
                                   7,
                                   8,
                                   31,
                                   32,
                                   33,
                                   64,
                                   96,
                                   (size_t)1 << 31,
                                   (size_t)1 << 40,
                                   SIZE_MAX};
    const uint64_t way = fuzz_below(from, 4);
    if (way == 0 && e->rank > 0) e->rank--;
    if (way == 1 && e->rank < 8) e->shape[e->rank++] = 1;
    if (way >= 2 && e->rank > 0)
        e->shape[fuzz_below(from, e->rank)] =
            sizes[fuzz_below(from, sizeof sizes / sizeof sizes[0])];
}

static void change_dtype(entry *e, fuzz_bytes *from)
{
    static const char *const names[] = {"F16", "BF16",    "F32", "F64", "F8_E4M3",
                                        "I8",  "F8_E5M2", "F4",  "BOOL"};
    e->dtype = names[fuzz_below(from, sizeof names / sizeof names[0])];
    const size_t size = luna_dtype_size(luna_dtype_parse(e->dtype, strlen(e->dtype)));
    e->size = size ? size : 1;
}

static void put_before(model *m, fuzz_bytes *from)
{
    static const char *const starts[] = {"vae.", "first_stage_model.", "decoder.", "x."};
    const char *start = starts[fuzz_below(from, 4)];
    for (size_t i = 0; i < m->count; i++) {
        char name[NAME_ROOM];
        snprintf(name, sizeof name, "%s%.70s", start, m->item[i].name);
        memcpy(m->item[i].name, name, sizeof name);
    }
}

static void swap_names(model *m, fuzz_bytes *from)
{
    char name[NAME_ROOM];
    entry *a = &m->item[fuzz_below(from, m->count)];
    entry *b = &m->item[fuzz_below(from, m->count)];
    memcpy(name, a->name, sizeof name);
    memmove(a->name, b->name, sizeof name);
    memcpy(b->name, name, sizeof name);
}

static void change(model *m, fuzz_bytes *from)
{
    const uint64_t way = fuzz_below(from, 8);
    entry *e = &m->item[fuzz_below(from, m->count)];
    if (way == 0) *e = m->item[--m->count];
    if (way == 1 || way == 2) change_shape(e, from);
    if (way == 3) change_dtype(e, from);
    if (way == 4)
        e->name[fuzz_below(from, strlen(e->name))] = (char)('a' + fuzz_below(from, 26));
    if (way == 5) swap_names(m, from);
    if (way == 6 && m->count < ENTRIES) {
        m->item[m->count] = *e;
        m->item[m->count++].name[0] = 'd';
    }
    if (way == 7) put_before(m, from);
}

//  ---- the file --------------------------------------------------------------------

//  Bytes of a tensor; too large ones are announced, but not there.
static size_t body_of(const entry *e)
{
    size_t bytes = e->size;
    for (size_t i = 0; i < e->rank; i++)
        if (__builtin_mul_overflow(bytes, e->shape[i], &bytes) || bytes > BODY_MAX)
            return 0;
    return bytes;
}

static size_t describe(const entry *e, size_t start, char *out, size_t room)
{
    char sizes[200] = "";
    size_t used = 0;
    for (size_t i = 0; i < e->rank; i++)
        used += (size_t)snprintf(sizes + used, sizeof sizes - used, "%s%zu", i ? "," : "",
                                 e->shape[i]);
    const int n =
        snprintf(out, room,
                 "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                 start ? ',' : '{', e->name, e->dtype, sizes, start, start + body_of(e));
    CHECK(n > 0 && (size_t)n < room);
    return (size_t)n;
}

//  The values: all bytes alike, so that of F16 they are about 1e-3, or NaN.
static luna_blob file_of(const model *m, uint8_t fill)
{
    static char header[HEADER_ROOM];
    size_t used = 0, body = 0;
    for (size_t i = 0; i < m->count; i++) {
        used += describe(&m->item[i], body, header + used, sizeof header - used);
        body += body_of(&m->item[i]);
    }
    header[used++] = m->count ? '}' : ' ';
    uint8_t *file = malloc(8 + used + body);
    CHECK(file);
    for (size_t i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)used >> (8 * i));
    memcpy(file + 8, header, used);
    memset(file + 8 + used, fill, body);
    return (luna_blob){file, 8 + used + body};
}

//  ---- what must hold --------------------------------------------------------------

static void decode(luna_vae *vae, const luna_vae_info *info, bool packed)
{
    float values[256] = {0}, *pixels = NULL;
    const size_t channels = packed ? info->packed_channels : info->latent_channels;
    if (channels == 0 || channels > 256) return;
    const luna_vae_latents latents = {.data = values,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = 1,
                                      .channels = channels,
                                      .height = 1,
                                      .width = 1};
    luna_vae_shape shape;
    CHECK(luna_vae_output_shape(vae, &latents, &shape) == LUNA_OK);
    CHECK(shape.height == info->spatial_factor * (packed ? 2 : 1));
    CHECK(shape.channels == info->output_channels);
    if (shape.height > 32 || info->parameter_count > 500000) return;
    luna_vae_target target = {.bytes = luna_pixels_bytes(&shape, 1, LUNA_PIXELS_F32)};
    target.format = LUNA_PIXELS_F32;
    target.data = pixels = malloc(target.bytes);
    CHECK(pixels);
    const luna_err err = luna_vae_decode(vae, &latents, 0, 1, &target);
    CHECK(err == LUNA_OK || err == LUNA_OVERFLOW);
    for (size_t i = 0; err == LUNA_OK && i < target.bytes / sizeof *pixels; i++)
        CHECK(pixels[i] >= 0.0F && pixels[i] <= 1.0F);
    free(pixels);
}

static void check_model(luna_blob file, fuzz_bytes *from)
{
    luna_vae *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.device = "reference";
    options.latent_scale = fuzz_bool(from) ? 0.5F : 0.0F;
    const char *label = fuzz_bool(from) ? "taesd3" : "the file";
    const luna_err err = luna_vae_open_bytes(file.data, file.len, label, &options, &vae);
    if (err != LUNA_OK) {
        CHECK(err == LUNA_BAD_MODEL && !vae && !strchr(luna_error_text(), '\n'));
        fuzz_check_error(err);
        return;
    }
    const luna_vae_info *info = luna_vae_describe(vae);
    CHECK(info->latent_channels > 0 && info->parameter_count > 0);
    CHECK(info->output_channels == 3 || info->output_channels == 4);
    CHECK(info->read_bytes <= info->file_bytes && info->file_bytes == file.len);
    CHECK(isfinite(info->latent_scale) && info->latent_scale != 0.0F);
    decode(vae, info, fuzz_bool(from));
    luna_vae_close(&vae);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    model *m = calloc(1, sizeof *m);
    CHECK(m);
    write_down(m, fuzz_below(&from, 7));
    for (uint64_t left = fuzz_below(&from, 5); left > 0 && m->count > 1; left--)
        change(m, &from);
    luna_blob file = file_of(m, fuzz_below(&from, 8) == 0 ? 0xff : 0x14);
    if (fuzz_below(&from, 8) == 0) file.len = fuzz_uint(&from, 4) % (file.len + 1);
    check_model(file, &from);
    free((void *)(uintptr_t)file.data);
    free(m);
    return 0;
}
