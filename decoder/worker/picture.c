#include "decoder/worker/picture.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "decoder/image/encode.h"
#include "decoder/worker/gate.h"
#include "decoder/worker/json_members.h"
#include "decoder/worker/metadata.h"

//  A picture as it becomes a file.
typedef struct product {
    luna_picture *picture;
    luna_picture_is is;
    uint8_t *data;
    size_t len;
    luna_metadata *metadata;
    const char *sidecar;  //  in the metadata's memory; NULL for none
    size_t sidecar_len;
    char note[LUNA_SINK_NOTE_BYTES];
} product;

static double ms_since(int64_t start_ns)
{
    return (double)(luna_now_ns() - start_ns) / 1e6;
}

static const luna_msg_input *input_of(const luna_msg_job *job, const luna_image_key *key)
{
    return &job->inputs.items[key->input];
}

//  The digits that the metadata has, or its text.
static luna_text seed_of(const luna_msg_job *job)
{
    luna_text value;
    if (!luna_members_find(job->metadata, "seed", &value)) return (luna_text){0};
    const bool quoted = value.len >= 2 && value.data[0] == '"';
    return quoted ? (luna_text){value.data + 1, value.len - 2} : value;
}

luna_err luna_picture_name(const luna_msg_job *job, const luna_picture_is *is,
                           luna_name *out)
{
    const luna_msg_input *input = input_of(job, &is->key);
    luna_format format;
    LUNA_TRY(luna_format_parse(input->format.data, input->format.len, &format));
    const luna_name_request request = {.save_path = job->save_path,
                                       .filename = job->filename,
                                       .affix = input->affix,
                                       .model_name = job->model_name,
                                       .seed = seed_of(job),
                                       .subdir = input->subdir,
                                       .discarded = is->discarded,
                                       .sidecar = job->sidecar,
                                       .ext = luna_format_extension(format),
                                       .filename_index = job->filename_index,
                                       .index = is->key.index,
                                       .count = input->shape.at[0],
                                       .width = is->width,
                                       .height = is->height,
                                       .created_ms = job->created_ms,
                                       .utc_offset_min = job->utc_offset_min};
    return luna_name_make(&request, out);
}

//  ---- bytes --------------------------------------------------------------------------

static void add_note(product *p, const char *text)
{
    const size_t used = strlen(p->note);
    snprintf(p->note + used, sizeof p->note - used, "%s%s", used ? "; " : "", text);
}

static void note_left_out(product *p, const bool *left_out)
{
    bool any = false;
    for (size_t i = 0; i < p->metadata->count; i++) {
        if (!left_out[i]) continue;
        const char *keyword = p->metadata->texts[i].keyword;
        if (!any) add_note(p, "left out, a JPEG ends at 64 KiB:");
        const size_t used = strlen(p->note);
        snprintf(p->note + used, sizeof p->note - used, "%s %s", any ? "," : "", keyword);
        any = true;
    }
    if (any) luna_log(LUNA_LOG_WARNING, "metadata_left_out", "note=\"%s\"", p->note);
}

//  Without texts too: see encode.h.
static luna_err embed(product *p, luna_format format)
{
    bool left_out[LUNA_METADATA_MAX] = {false};
    const size_t count = p->picture->job->embed_workflow ? p->metadata->count : 0;
    LUNA_TRY(
        luna_image_embed(format, p->metadata->texts, count, &p->data, &p->len, left_out));
    note_left_out(p, left_out);
    return LUNA_OK;
}

//  Floats in [0, 1] become big-endian numbers of 16 bits, in their place: a number is
//  written where a float was read before.
static void deepen(luna_picture *picture)
{
    const size_t count = picture->width * picture->height * picture->channels;
    for (size_t i = 0; i < count; i++) {
        float value;
        memcpy(&value, picture->pixels + i * sizeof value, sizeof value);
        const float scaled = value * 65535.0f;
        const uint16_t sample =
            (uint16_t)(picture->job->round_pixels ? lrintf(scaled) : (long)scaled);
        picture->pixels[2 * i] = (uint8_t)(sample >> 8);
        picture->pixels[2 * i + 1] = (uint8_t)sample;
    }
}

static luna_err encode(product *p, luna_format *format)
{
    luna_picture *picture = p->picture;
    const bool deep = picture->format == LUNA_PIXELS_F32;
    if (deep) deepen(picture);
    const luna_msg_input *input = input_of(picture->job, &picture->key);
    const luna_pixels pixels = {.data = picture->pixels,
                                .width = picture->width,
                                .height = picture->height,
                                .channels = picture->channels,
                                .sample_bytes = deep ? 2 : 1};
    luna_encode_options options = luna_encode_options_default();
    LUNA_TRY(luna_format_parse(input->format.data, input->format.len, format));
    options.format = *format;
    options.png_compression = (int)input->png_compression;
    options.lossy_quality = (int)input->lossy_quality;
    options.lossless = input->lossless_webp;
    p->is.discarded = luna_gate_rejects(picture->job, &pixels, p->note, sizeof p->note);
    return luna_image_encode(&pixels, &options, &p->data, &p->len);
}

static luna_err make_product(product *p)
{
    const luna_picture *picture = p->picture;
    const luna_metadata_of of = {.job = picture->job,
                                 .input = (size_t)picture->key.input,
                                 .index = (size_t)picture->key.index,
                                 .width = picture->width,
                                 .height = picture->height};
    luna_format format;
    LUNA_TRY(luna_metadata_collect(&of, p->metadata));
    if (picture->job->sidecar)
        LUNA_TRY(luna_metadata_json(p->metadata, &p->sidecar, &p->sidecar_len));
    LUNA_TRY(encode(p, &format));
    return embed(p, format);
}

static void free_product(product *p)
{
    free(p->data);
    if (p->metadata) luna_arena_free(&p->metadata->memory);
    free(p->metadata);
}

//  ---- a file -------------------------------------------------------------------------

static luna_err put(const product *p, luna_image_record *record)
{
    const luna_picture *picture = p->picture;
    luna_name name;
    LUNA_TRY(luna_picture_name(picture->job, &p->is, &name));
    const luna_image image = {.key = picture->key,
                              .output_dir = picture->job->output_dir,
                              .name = &name,
                              .data = p->data,
                              .len = p->len,
                              .width = picture->width,
                              .height = picture->height,
                              .note = p->note,
                              .sidecar = p->sidecar,
                              .sidecar_len = p->sidecar_len};
    return luna_sink_put(picture->sink, &image, record);
}

static luna_err save(luna_picture *picture)
{
    luna_timings timings = {.decode_ms = picture->decode_ms};
    product p = {.picture = picture,
                 .is = {picture->key, picture->width, picture->height, false},
                 .metadata = calloc(1, sizeof *p.metadata)};
    luna_image_record record = {0};
    int64_t start_ns = luna_now_ns();
    luna_err err = p.metadata
                       ? make_product(&p)
                       : luna_error(LUNA_NO_MEMORY, "no memory for a picture's metadata");
    timings.encode_ms = ms_since(start_ns);
    start_ns = luna_now_ns();
    if (err == LUNA_OK) err = put(&p, &record);
    timings.write_ms = ms_since(start_ns);
    if (err == LUNA_OK) err = luna_attempt_saved(picture->attempt, &record, &timings);
    free_product(&p);
    return err;
}

//  A cancelled job's pictures are not saved; those of a failed one are: its next
//  attempt finds them.
static void run(luna_task *task)
{
    luna_picture *picture = (luna_picture *)task;
    if (!luna_attempt_is_cancelled(picture->attempt)) {
        const luna_err err = save(picture);
        if (err != LUNA_OK) luna_attempt_fail(picture->attempt, err);
    }
    luna_picture_free(picture);
}

luna_pixels_format luna_picture_format(const luna_msg_input *input)
{
    const bool deep = input->png_bits == 16 && luna_text_is(input->format, "png");
    return deep ? LUNA_PIXELS_F32 : LUNA_PIXELS_U8;
}

luna_picture *luna_picture_new(luna_attempt *attempt, const luna_vae_shape *shape,
                               luna_pixels_format format)
{
    const size_t width = shape->width, height = shape->height;
    const size_t bytes = luna_pixels_bytes(shape, 1, format);
    luna_picture *picture = malloc(sizeof *picture + bytes);
    if (!picture) {
        (void)luna_error(LUNA_NO_MEMORY, "no memory for %zu x %zu pixels", width, height);
        return NULL;
    }
    *picture = (luna_picture){.task = {.run = run, .bytes = bytes},
                              .attempt = attempt,
                              .width = width,
                              .height = height,
                              .channels = shape->channels,
                              .format = format};
    luna_attempt_hold(attempt);
    return picture;
}

void luna_picture_free(luna_picture *picture)
{
    luna_attempt *attempt = picture->attempt;
    free(picture);
    luna_attempt_release(&attempt);
}
