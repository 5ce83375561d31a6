#include "proto/job.h"

#include "proto/codec.h"
#include "proto/formats.h"
#include "proto/heatmaps.h"

#include <string.h>

//  Bytes of one element; 0 for a word the wire does not have.
static size_t element_bytes(luna_text dtype)
{
    if (luna_text_is(dtype, "float32")) return 4;
    return luna_text_is(dtype, "float16") || luna_text_is(dtype, "bfloat16") ? 2 : 0;
}

static luna_err bad(luna_err err, size_t input, const char *what)
{
    return luna_error(err, "latent %zu: %s", input + 1, what);
}

//  [N, C, H, W], or a video latent's [N, C, T, H, W] with one frame.
static luna_err check_shape(const luna_dims *shape, size_t input)
{
    if (shape->count != 4 && shape->count != 5)
        return bad(LUNA_BAD_LATENT, input, "its shape must be [N, C, H, W]");
    for (size_t i = 0; i < shape->count; i++)
        if (shape->at[i] == 0 || shape->at[i] > 1u << 20)
            return bad(LUNA_BAD_LATENT, input, "a dimension is 0 or beyond 2^20");
    if (shape->at[0] > LUNA_MAX_BATCH)
        return luna_error(LUNA_BAD_LATENT,
                          "latent %zu: %llu images; at most %d in a batch", input + 1,
                          (unsigned long long)shape->at[0], LUNA_MAX_BATCH);
    if (shape->count == 5 && shape->at[2] != 1)
        return bad(LUNA_UNSUPPORTED, input, "a video latent; Luna decodes single images");
    return LUNA_OK;
}

//  False when the product does not fit: dimensions are at most 2^20, so five of them
//  can.
static bool expected_bytes(const luna_msg_input *input, uint64_t *out)
{
    uint64_t bytes = element_bytes(input->dtype);
    for (size_t i = 0; i < input->shape.count; i++)
        if (__builtin_mul_overflow(bytes, input->shape.at[i], &bytes)) return false;
    *out = bytes;
    return true;
}

static luna_err check_input(const luna_msg_input *input, size_t i)
{
    if (element_bytes(input->dtype) == 0)
        return bad(LUNA_BAD_LATENT, i, "its dtype must be float32, float16 or bfloat16");
    LUNA_TRY(check_shape(&input->shape, i));
    uint64_t bytes;
    if (!expected_bytes(input, &bytes) || bytes != input->latent.len)
        return luna_error(LUNA_BAD_LATENT,
                          "latent %zu: %zu bytes do not match its dtype and shape", i + 1,
                          input->latent.len);
    if (!luna_formats_of(input->format))
        return bad(LUNA_BAD_REQUEST, i,
                   "its format must be png, webp, jpeg, avif or jxl");
    if (input->lossy_quality < 70)
        return bad(LUNA_BAD_REQUEST, i, "lossy_quality must be 70 to 100");
    if (input->png_bits != 8 && input->png_bits != 16)
        return bad(LUNA_BAD_REQUEST, i, "png_bits must be 8 or 16");
    return LUNA_OK;
}

static bool one_of(luna_text text, const char *const *words)
{
    if (!text.data) return true;
    for (; *words; words++)
        if (luna_text_is(text, *words)) return true;
    return false;
}

luna_err luna_job_check(const luna_msg_job *job)
{
    static const char *const modes[] = {"daemon", "database_store", NULL};
    static const char *const gates[] = {"disabled", "variance", "edge_density", "both",
                                        NULL};
    if (luna_id_is_nil(&job->id))
        return luna_error(LUNA_BAD_REQUEST, "the job id is nil");
    if (job->inputs.count == 0 || job->inputs.count > LUNA_MAX_INPUTS)
        return luna_error(LUNA_BAD_REQUEST, "a job has 1 to %d latents, not %zu",
                          LUNA_MAX_INPUTS, job->inputs.count);
    if (job->vae.len == 0)
        return luna_error(LUNA_BAD_REQUEST, "vae is empty; name one or use 'auto'");
    if (job->output_dir.len && job->output_dir.data[0] != '/')
        return luna_error(LUNA_BAD_REQUEST, "output_dir must be an absolute path");
    if (!one_of(job->save_mode, modes))
        return luna_error(LUNA_BAD_REQUEST, "save_mode must be daemon or database_store");
    if (!one_of(job->quality_gate, gates))
        return luna_error(
            LUNA_BAD_REQUEST,
            "quality_gate must be disabled, variance, edge_density or both");
    for (size_t i = 0; i < job->inputs.count; i++)
        LUNA_TRY(check_input(&job->inputs.items[i], i));
    return luna_heatmaps_check(job);
}

uint64_t luna_job_content(const luna_msg_job *job)
{
    luna_msg_job same = *job;
    same.client = job->id;
    same.created_ms = 0;
    same.utc_offset_min = 0;
    return luna_msg_sum(LUNA_MSG_JOB, &same);
}

uint64_t luna_job_images(const luna_msg_job *job)
{
    uint64_t images = 0;
    for (size_t i = 0; i < job->inputs.count; i++)
        images += job->inputs.items[i].shape.at[0];
    return images;
}

luna_msg_input luna_msg_input_default(void)
{
    return (luna_msg_input){.format = luna_text_of("png"),
                            .png_compression = 4,
                            .lossy_quality = 90,
                            .png_bits = 8,
                            .subdir = true};
}

luna_msg_job luna_msg_job_default(void)
{
    return (luna_msg_job){.priority = LUNA_PRIORITY_DEFAULT,
                          .vae = luna_text_of("auto"),
                          .embed_workflow = true};
}
