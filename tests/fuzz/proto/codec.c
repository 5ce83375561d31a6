//  codec.c - any bytes as a message: opened, peeked at, read, encoded again
//
//  What reads also encodes, to bytes that read as the same message; a job that passes
//  the checks has what the checks promise.

#include "fuzz/proto/messages.h"
#include "proto/job.h"
#include "proto/scan.h"

static void check_peek(const void *data, size_t len)
{
    static const char *const keys[] = {"id", "client", "instance"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        luna_id id;
        if (!luna_packet_peek_id(data, len, keys[i], &id)) continue;
        CHECK(luna_scan(data, len) == LUNA_OK);
    }
}

static size_t dtype_bytes(luna_text dtype)
{
    return luna_text_is(dtype, "float32") ? 4 : 2;
}

static void check_input(const luna_msg_input *input)
{
    uint64_t bytes = dtype_bytes(input->dtype);
    CHECK(input->shape.count == 4 || input->shape.count == 5);
    for (size_t i = 0; i < input->shape.count; i++) bytes *= input->shape.at[i];
    CHECK(bytes == input->latent.len && bytes > 0);
    CHECK(input->shape.at[0] >= 1 && input->shape.at[0] <= LUNA_MAX_BATCH);
}

static void check_job(const luna_msg_job *job)
{
    const luna_err err = luna_job_check(job);
    if (err != LUNA_OK) {
        fuzz_check_error(err);
        return;
    }
    const uint64_t images = luna_job_images(job);
    CHECK(images >= 1 && images <= (uint64_t)LUNA_MAX_INPUTS * LUNA_MAX_BATCH);
    CHECK(job->inputs.count >= 1 && job->inputs.count <= LUNA_MAX_INPUTS);
    for (size_t i = 0; i < job->inputs.count; i++) check_input(&job->inputs.items[i]);
}

static void check_read(luna_packet *packet)
{
    any_message message, twice;
    const luna_msg_type type = luna_packet_type(packet);
    CHECK(type < LUNA_MSG_COUNT);
    const luna_err err = luna_packet_read(packet, &message);
    CHECK(luna_packet_read(packet, &twice) == err);
    if (err != LUNA_OK) {
        fuzz_check_error(err);
        return;
    }
    CHECK(same_fields(luna_msg_schema(type), &message, &twice));
    check_round_trip(type, &message);
    if (type == LUNA_MSG_JOB) check_job(&message.JOB);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    luna_packet *packet = NULL;
    check_peek(data, len);
    const luna_err err = luna_packet_open(data, len, &packet);
    if (err != LUNA_OK) {
        fuzz_check_error(err);
        CHECK(!packet);
        //  What the scan lets through is msgpack.
        CHECK(strcmp(luna_error_text(), "the message cannot be unpacked") != 0);
        return 0;
    }
    check_read(packet);
    luna_packet_close(&packet);
    return 0;
}
