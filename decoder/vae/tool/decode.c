#include "common/clock.h"
#include "common/latent_file.h"
#include "decoder/vae/tool/tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool shows_progress(size_t total)
{
    return total > 1 && isatty(STDERR_FILENO);
}

static void progress(size_t done, size_t total, int64_t started_ms)
{
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    if (!shows_progress(total)) return;
    for (size_t i = 0; i < WIDTH; i++) bar[i] = i < done * WIDTH / total ? '#' : '.';
    bar[WIDTH] = '\0';
    const double seconds = (double)(luna_now_ms() - started_ms) / 1e3;
    fprintf(stderr, "\r[%s] %zu/%zu images, %.1f s", bar, done, total, seconds);
}

static luna_err decode_to(luna_vae *vae, const luna_vae_latents *latents,
                          const luna_vae_target *target, luna_safetensors_writer *writer)
{
    const int64_t started_ms = luna_now_ms();
    luna_err err = LUNA_OK;
    progress(0, latents->count, started_ms);
    for (size_t i = 0; err == LUNA_OK && i < latents->count; i++) {
        err = luna_vae_decode(vae, latents, i, 1, target);
        if (err == LUNA_OK)
            err = luna_safetensors_append(writer, target->data, target->bytes);
        if (err == LUNA_OK) progress(i + 1, latents->count, started_ms);
    }
    if (shows_progress(latents->count)) fputc('\n', stderr);
    return err;
}

//  One image at a time through one buffer, however large the batch.
static luna_err decode_file(const tool_options *options, luna_vae *vae,
                            const luna_vae_latents *latents, const luna_vae_shape *shape)
{
    const luna_tensor_spec spec = {
        .name = "pixels",
        .dtype = LUNA_DTYPE_F32,
        .rank = 4,
        .shape = {shape->count, shape->channels, shape->height, shape->width}};
    luna_vae_target target = {
        .bytes = luna_pixels_bytes(shape, 1, LUNA_PIXELS_F32_PLANAR),
        .format = LUNA_PIXELS_F32_PLANAR,
        .rule = options->raw ? LUNA_PIXELS_RAW : LUNA_PIXELS_TRUNCATE};
    luna_safetensors_writer *writer = NULL;
    target.data = malloc(target.bytes);
    luna_err err =
        target.data ? LUNA_OK : luna_error(LUNA_NO_MEMORY, "no memory for a picture");
    if (err == LUNA_OK) err = luna_safetensors_create(options->output, &spec, 1, &writer);
    if (err == LUNA_OK) err = decode_to(vae, latents, &target, writer);
    if (err == LUNA_OK) err = luna_safetensors_commit(&writer);
    luna_safetensors_abandon(&writer);
    free(target.data);
    return err;
}

static void report(const luna_vae_info *info, const luna_vae_shape *shape)
{
    printf("pixels: %zu x %zu x %zu x %zu; %s: %llu bytes read of %llu\n", shape->count,
           shape->channels, shape->height, shape->width, info->variant,
           (unsigned long long)info->read_bytes, (unsigned long long)info->file_bytes);
}

//  What is wrong with the latents shows before anything is written.
static luna_err decode_tensor(const tool_options *options, const luna_tensor *tensor)
{
    luna_vae *vae = NULL;
    luna_vae_latents latents;
    luna_vae_shape shape;
    LUNA_TRY(luna_vae_latents_from(tensor->data, tensor->dtype, tensor->shape,
                                   tensor->rank, &latents));
    LUNA_TRY(luna_vae_open(options->model, &options->vae, &vae));
    luna_err err = luna_vae_output_shape(vae, &latents, &shape);
    if (err == LUNA_OK) err = luna_vae_prepare(vae, &latents, NULL);
    if (err == LUNA_OK) err = decode_file(options, vae, &latents, &shape);
    if (err == LUNA_OK) report(luna_vae_describe(vae), &shape);
    luna_vae_close(&vae);
    return err;
}

luna_err tool_decode(const tool_options *options)
{
    luna_latent_file latents;
    if (!options->model || !options->latents || !options->output)
        return luna_error(LUNA_USAGE, "decode needs --model, --latents and --output");
    LUNA_TRY(luna_latent_file_open(options->latents, &latents));
    const luna_err err = decode_tensor(options, &latents.tensor);
    luna_latent_file_close(&latents);
    return err;
}
