#include "common/clock.h"
#include "common/latent_file.h"
#include "decoder/vae/tool/tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

//  What a terminal is told of a decode, a few times a second.
typedef struct progress {
    size_t images;
    size_t image_steps;  //  of one image; 0: not known
    size_t steps;        //  done, of all images
    size_t shown;        //  images done
    int64_t started_ms;
    int64_t drawn_ms;
    bool wanted;
} progress;

static void draw(progress *p)
{
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    const size_t all = p->images * p->image_steps;
    const size_t filled = all ? p->steps * WIDTH / all : 0;
    for (size_t i = 0; i < WIDTH; i++) bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = '\0';
    p->drawn_ms = luna_now_ms();
    fprintf(stderr, "\r[%s] %3zu%%, %zu/%zu images, %.1f s", bar,
            all ? p->steps * 100 / all : 0, p->shown, p->images,
            (double)(p->drawn_ms - p->started_ms) / 1e3);
}

static void advance(void *context)
{
    enum { EVERY_MS = 200 };
    progress *p = context;
    p->steps++;
    if (p->wanted && luna_now_ms() - p->drawn_ms >= EVERY_MS) draw(p);
}

static luna_err decode_to(luna_vae *vae, const luna_vae_latents *latents,
                          const luna_vae_target *target, luna_safetensors_writer *writer,
                          progress *p)
{
    luna_err err = LUNA_OK;
    p->started_ms = luna_now_ms();
    if (p->wanted) draw(p);
    for (size_t i = 0; err == LUNA_OK && i < latents->count; i++) {
        err = luna_vae_decode(vae, latents, i, 1, target);
        if (err == LUNA_OK)
            err = luna_safetensors_append(writer, target->data, target->bytes);
        if (err == LUNA_OK) p->shown++;
        if (err == LUNA_OK && p->wanted) draw(p);
    }
    if (p->wanted) fputc('\n', stderr);
    return err;
}

//  One image at a time through one buffer, however large the batch.
static luna_err decode_file(const tool_options *options, luna_vae *vae,
                            const luna_vae_latents *latents, const luna_vae_shape *shape,
                            progress *p)
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
    if (err == LUNA_OK) err = decode_to(vae, latents, &target, writer, p);
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
    luna_vae_cost cost;
    luna_vae_options settings = options->vae;
    progress p = {.wanted = isatty(STDERR_FILENO)};
    settings.step = advance;
    settings.step_context = &p;
    LUNA_TRY(luna_vae_latents_from(tensor->data, tensor->dtype, tensor->shape,
                                   tensor->rank, &latents));
    LUNA_TRY(luna_vae_open(options->model, &settings, &vae));
    luna_err err = luna_vae_output_shape(vae, &latents, &shape);
    if (err == LUNA_OK) err = luna_vae_prepare(vae, &latents, &cost);
    if (err == LUNA_OK) {
        p.images = shape.count;
        p.image_steps = cost.steps;
        err = decode_file(options, vae, &latents, &shape, &p);
    }
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
