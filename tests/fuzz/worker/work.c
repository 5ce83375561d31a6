//  work.c - any bytes as a work message, and any job in a sound one
//
//  What loads is a job that passes the checks; its metadata, whatever is in it, makes a
//  PNG that holds every text.

#include "common/json_text.h"
#include "common/log.h"
#include "decoder/image/png_chunks.h"
#include "decoder/worker/json_members.h"
#include "decoder/worker/metadata.h"
#include "decoder/worker/work.h"
#include "fuzz/fuzz.h"
#include "proto/codec.h"
#include "proto/job.h"
#include "proto/payload.h"

int LLVMFuzzerInitialize(int *count, char ***words)
{
    (void)count;
    (void)words;
    luna_log_start("fuzz", LUNA_LOG_ERROR);
    return 0;
}

//  A grey pixel.
static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0,    0, 0, 13,
                              'I',  'H', 'D', 'R', 0,    0,    0,    1,    0,    0, 0, 1,
                              8,    0,   0,   0,   0,    0x3a, 0x7e, 0x9b, 0x55, 0, 0, 0,
                              0,    'I', 'E', 'N', 'D',  0xae, 0x42, 0x60, 0x82};

static const uint8_t webp[] = {'R', 'I', 'F',  'F', 18,  0,   0,   0, 'W',
                               'E', 'B', 'P',  'V', 'P', '8', 'L', 5, 0,
                               0,   0,   0x2F, 0,   0,   0,   0,   0};
static const uint8_t jpeg[] = {0xFF, 0xD8, 0xFF, 0xDB, 0,    2,
                               0xFF, 0xDA, 0,    2,    0xFF, 0xD9};

//  What was collected can be embedded: no picture is lost over its texts.
static void check_embedded(luna_format format, const uint8_t *plain, size_t len,
                           const luna_metadata *metadata)
{
    bool left_out[LUNA_METADATA_MAX];
    uint8_t *file = fuzz_copy(plain, len);
    CHECK(luna_image_embed(format, metadata->texts, metadata->count, &file, &len,
                           left_out) == LUNA_OK);
    free(file);
}

static void check_json(luna_metadata *metadata)
{
    const char *text, *fault;
    size_t len, key_len = 0;
    CHECK(luna_metadata_json(metadata, &text, &len) == LUNA_OK);
    CHECK(len >= 4 && text[0] == '{' && text[len - 2] == '}' && text[len - 1] == '\n');
    if (metadata->count == 0) return;
    char *key = malloc(len);
    CHECK(key && luna_json_text_read(text + 4, len - 4, key, &key_len, &fault) > 0);
    CHECK(key_len == strlen(metadata->texts[0].keyword));
    free(key);
}

static void check_metadata(const luna_msg_job *job, size_t input, size_t index)
{
    static luna_metadata metadata;
    uint8_t *out = NULL;
    size_t len = 0;
    const luna_metadata_of of = {
        .job = job, .input = input, .index = index, .width = 640, .height = 480};
    const luna_err err = luna_metadata_collect(&of, &metadata);
    CHECK(err == LUNA_OK && metadata.count <= LUNA_METADATA_MAX);
    CHECK(luna_png_add_text(png, sizeof png, metadata.texts, metadata.count, &out,
                            &len) == LUNA_OK);
    for (size_t i = 0; i < metadata.count; i++) {
        const char *found;
        size_t found_len;
        CHECK(luna_png_find_text(out, len, metadata.texts[i].keyword, &found,
                                 &found_len) == LUNA_OK);
        CHECK(found_len == metadata.texts[i].len);
    }
    free(out);
    check_embedded(LUNA_FORMAT_WEBP, webp, sizeof webp, &metadata);
    check_embedded(LUNA_FORMAT_JPEG, jpeg, sizeof jpeg, &metadata);
    check_json(&metadata);
    luna_arena_free(&metadata.memory);
}

static void check_job(const luna_msg_job *job)
{
    CHECK(luna_job_check(job) == LUNA_OK);
    for (size_t i = 0; i < job->inputs.count; i++) check_metadata(job, i, i);
}

static void open_and_load(void *data, size_t len)
{
    const luna_received message = {
        .handle = data, .data = data, .len = len, .free = free};
    luna_work *work = NULL;
    luna_err err = luna_work_open(message, &work);
    if (err != LUNA_OK) {
        CHECK(!work);
        fuzz_check_error(err);
        return;
    }
    //  A path would be opened as it is: that belongs to the broker, not to a test.
    if (luna_work_message(work)->payload.data) err = luna_work_load(work);
    if (err != LUNA_OK) fuzz_check_error(err);
    if (err == LUNA_OK && luna_work_message(work)->payload.data)
        check_job(luna_work_job(work));
    luna_work_unload(work);
    CHECK(!luna_work_message(work)->payload.data);
    luna_work_close(&work);
}

//  The bytes as the body of a sealed payload in a sound message of the id they claim.
static void load_body(luna_blob body)
{
    luna_msg_work fields = {.id = {{1}}, .attempt = 1, .epoch = {{2}}, .lease_ms = 1};
    luna_packet_peek_id(body.data, body.len, "id", &fields.id);
    uint8_t *file = malloc(LUNA_PAYLOAD_HEADER_BYTES + body.len);
    CHECK(file);
    const luna_payload payload = {
        .id = fields.id, .body = body, .hash = luna_payload_hash(body)};
    luna_payload_header(&payload, file);
    if (body.len) memcpy(file + LUNA_PAYLOAD_HEADER_BYTES, body.data, body.len);
    fields.payload = (luna_blob){file, LUNA_PAYLOAD_HEADER_BYTES + body.len};
    fields.payload_bytes = fields.payload.len;
    void *data = NULL;
    size_t len = 0;
    if (luna_msg_pack(LUNA_MSG_WORK, &fields, &data, &len) == LUNA_OK)
        open_and_load(data, len);
    free(file);
}

//  The bytes as metadata, prompt, extra and heatmaps of a job.
static void collect(luna_blob text)
{
    const luna_msg_token token = {{text.data, text.len < 30 ? text.len : 30}, text.len};
    luna_msg_heatmaps heatmaps = {.prompt = {"negative", 8},
                                  .variant = {"modified", 8},
                                  .shape = {{1, 1, 1, text.len / sizeof(float)}, 4},
                                  .maps = text};
    heatmaps.tokens.items = &token;
    heatmaps.tokens.count = 1;
    luna_msg_input input = luna_msg_input_default();
    luna_msg_job job = luna_msg_job_default();
    const luna_pair extra[2] = {{{text.data, text.len < 30 ? text.len : 30}, {"{}", 2}},
                                {{"note", 4}, text}};
    input.shape = (luna_dims){.at = {2, 4, 1, 1}, .count = 4};
    job.metadata = text;
    job.prompt = text;
    job.extra.items = extra;
    job.extra.count = 2;
    job.heatmaps.items = &heatmaps;
    job.heatmaps.count = text.len >= sizeof(float);
    job.inputs.items = &input;
    job.inputs.count = 1;
    job.created_ms = text.len * 1000003;
    check_metadata(&job, 0, 1);
}

//  Every member is a span of the text.
static void walk(luna_blob json)
{
    luna_members members = luna_members_of(json);
    luna_text key, value;
    const char *start = json.data, *end = start + json.len;
    while (luna_members_next(&members, &key, &value)) {
        CHECK(key.data >= start && key.data + key.len <= value.data);
        CHECK(key.len >= 2 && value.len > 0 && value.data + value.len <= end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    const uint64_t way = fuzz_below(&from, 3);
    const luna_blob rest = fuzz_rest(&from);
    if (rest.len == 0) return 0;
    void *copy = fuzz_copy(rest.data, rest.len);
    if (way == 0) {
        open_and_load(copy, rest.len);
        return 0;
    }
    if (way == 1) {
        load_body((luna_blob){copy, rest.len});
    } else {
        walk((luna_blob){copy, rest.len});
        collect((luna_blob){copy, rest.len});
    }
    free(copy);
    return 0;
}
