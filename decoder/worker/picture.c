#include "decoder/worker/picture.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "decoder/image/encode.h"
#include "decoder/worker/metadata.h"

typedef struct file_bytes {
    uint8_t *data;
    size_t len;
} file_bytes;

static double ms_since(int64_t start_ns)
{
    return (double)(luna_now_ns() - start_ns) / 1e6;
}

static const luna_msg_input *input_of(const luna_msg_job *job, const luna_image_key *key)
{
    return &job->inputs.items[key->input];
}

luna_err luna_picture_name(const luna_msg_job *job, const luna_image_key *key,
                           luna_name *out)
{
    const luna_msg_input *input = input_of(job, key);
    luna_format format;
    LUNA_TRY(luna_format_parse(input->format.data, input->format.len, &format));
    const luna_name_request request = {.save_path = job->save_path,
                                       .filename = job->filename,
                                       .affix = input->affix,
                                       .model_name = job->model_name,
                                       .subdir = input->subdir,
                                       .ext = luna_format_extension(format),
                                       .filename_index = job->filename_index,
                                       .index = key->index,
                                       .count = input->shape.at[0],
                                       .created_ms = job->created_ms,
                                       .utc_offset_min = job->utc_offset_min};
    return luna_name_make(&request, out);
}

//  Encoder's bytes with the texts in; `bytes` is replaced.
static luna_err add_metadata(const luna_picture *picture, file_bytes *bytes)
{
    luna_metadata *metadata = malloc(sizeof *metadata);
    if (!metadata) return luna_error(LUNA_NO_MEMORY, "no memory for an image's metadata");
    file_bytes with = {0};
    luna_err err = luna_metadata_collect(picture->job, (size_t)picture->key.input,
                                         (size_t)picture->key.index, metadata);
    if (err == LUNA_OK)
        err = luna_png_add_text(bytes->data, bytes->len, metadata->texts, metadata->count,
                                &with.data, &with.len);
    if (err == LUNA_OK) {
        free(bytes->data);
        *bytes = with;
    }
    luna_arena_free(&metadata->memory);
    free(metadata);
    return err;
}

static luna_err encode(const luna_picture *picture, file_bytes *bytes)
{
    const luna_msg_input *input = input_of(picture->job, &picture->key);
    const luna_pixels pixels = {picture->pixels, picture->width, picture->height,
                                picture->channels};
    luna_encode_options options = luna_encode_options_default();
    LUNA_TRY(luna_format_parse(input->format.data, input->format.len, &options.format));
    options.png_compression = (int)input->png_compression;
    LUNA_TRY(luna_image_encode(&pixels, &options, &bytes->data, &bytes->len));
    return add_metadata(picture, bytes);
}

static luna_err put(const luna_picture *picture, const file_bytes *bytes,
                    luna_image_record *record)
{
    luna_name name;
    LUNA_TRY(luna_picture_name(picture->job, &picture->key, &name));
    const luna_image image = {.key = picture->key,
                              .output_dir = picture->job->output_dir,
                              .name = &name,
                              .data = bytes->data,
                              .len = bytes->len,
                              .width = picture->width,
                              .height = picture->height};
    return luna_sink_put(picture->sink, &image, record);
}

static luna_err save(const luna_picture *picture)
{
    luna_timings timings = {.decode_ms = picture->decode_ms};
    file_bytes bytes = {0};
    luna_image_record record = {0};
    int64_t start_ns = luna_now_ns();
    luna_err err = encode(picture, &bytes);
    timings.encode_ms = ms_since(start_ns);
    start_ns = luna_now_ns();
    if (err == LUNA_OK) err = put(picture, &bytes, &record);
    timings.write_ms = ms_since(start_ns);
    if (err == LUNA_OK) err = luna_attempt_saved(picture->attempt, &record, &timings);
    free(bytes.data);
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

luna_picture *luna_picture_new(luna_attempt *attempt, size_t width, size_t height,
                               size_t channels)
{
    const size_t bytes = width * height * channels;
    luna_picture *picture = malloc(sizeof *picture + bytes);
    if (!picture) {
        (void)luna_error(LUNA_NO_MEMORY, "no memory for %zu x %zu pixels", width, height);
        return NULL;
    }
    *picture = (luna_picture){.task = {.run = run, .bytes = bytes},
                              .attempt = attempt,
                              .width = width,
                              .height = height,
                              .channels = channels};
    luna_attempt_hold(attempt);
    return picture;
}

void luna_picture_free(luna_picture *picture)
{
    luna_attempt *attempt = picture->attempt;
    free(picture);
    luna_attempt_release(&attempt);
}
