//  The codec on what a hostile or careless peer may send.

#define _GNU_SOURCE  //  memmem

#include "common/arena.h"
#include "proto/codec.h"
#include "proto/formats.h"
#include "proto/heatmaps.h"
#include "proto/job.h"
#include "proto/payload.h"
#include "proto/scan.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static luna_msg_input sample_input(const float *latent)
{
    luna_msg_input input = luna_msg_input_default();
    input.affix = luna_text_of("FINAL");
    input.dtype = luna_text_of("float32");
    input.shape = (luna_dims){.at = {2, 1, 1, 2}, .count = 4};
    input.latent = (luna_blob){.data = latent, .len = 4 * sizeof *latent};
    return input;
}

static const float latent[4] = {1, 2, 3, 4};
static luna_msg_input inputs[LUNA_MAX_INPUTS + 1];

static luna_msg_job sample_job(size_t count)
{
    luna_msg_job job = luna_msg_job_default();
    for (size_t i = 0; i < LUNA_MAX_INPUTS + 1; i++) inputs[i] = sample_input(latent);
    job.id = luna_id_new();
    job.client = luna_id_new();
    job.created_ms = 1790000000000;
    job.utc_offset_min = -90;
    job.prompt = (luna_blob){.data = "{\"seed\": 18446744073709551615}", .len = 30};
    job.inputs.items = inputs;
    job.inputs.count = count;
    return job;
}

static void *packed(const luna_msg_job *job, size_t *len)
{
    void *data = NULL;
    assert_int_equal(luna_msg_pack(LUNA_MSG_JOB, job, &data, len), LUNA_OK);
    return data;
}

static const luna_msg_token tokens[] = {{{"blue", 4}, 2}, {{NULL, 0}, 3}};

static luna_msg_heatmaps sample_heatmaps(void)
{
    luna_msg_heatmaps set = {.prompt = luna_text_of("positive"),
                             .variant = luna_text_of("original"),
                             .shape = {{2, 2, 1, 1}, 4},
                             .maps = {latent, sizeof latent}};
    set.tokens.items = tokens;
    set.tokens.count = 2;
    return set;
}

static void test_heatmaps_round_trip(void **state)
{
    (void)state;
    luna_msg_heatmaps sets[] = {sample_heatmaps(), sample_heatmaps()};
    luna_msg_job job = sample_job(1), out;
    sets[1].variant = luna_text_of("modified");
    job.heatmaps.items = sets;
    job.heatmaps.count = 2;
    size_t len;
    char *data = packed(&job, &len);
    luna_packet *packet;
    assert_int_equal(luna_packet_open(data, len, &packet), LUNA_OK);
    assert_int_equal(luna_packet_read(packet, &out), LUNA_OK);
    assert_int_equal(luna_job_check(&out), LUNA_OK);
    assert_int_equal(out.heatmaps.count, 2);
    const luna_msg_heatmaps *set = &out.heatmaps.items[1];
    assert_true(luna_text_is(set->variant, "modified"));
    assert_int_equal(set->tokens.count, 2);
    assert_true(luna_text_is(set->tokens.items[0].text, "blue"));
    assert_int_equal(set->tokens.items[1].index, 3);
    assert_null(set->tokens.items[1].text.data);
    assert_memory_equal(set->maps.data, latent, sizeof latent);
    assert_memory_equal(luna_heatmaps_of(set, 1), latent + 2, 2 * sizeof *latent);
    assert_null(luna_heatmaps_of(set, 2));
    luna_packet_close(&packet);
    free(data);
}

//  Other heatmaps, another job.
static void test_heatmaps_are_content(void **state)
{
    (void)state;
    static const float other[] = {1, 2, 3, 4.5f};
    luna_msg_heatmaps set = sample_heatmaps();
    luna_msg_job job = sample_job(1);
    const uint64_t without = luna_job_content(&job);
    job.heatmaps.items = &set;
    job.heatmaps.count = 1;
    const uint64_t with = luna_job_content(&job);
    set.maps.data = other;
    assert_int_not_equal(without, with);
    assert_int_not_equal(with, luna_job_content(&job));
}

static void refused_heatmaps(const luna_msg_heatmaps *sets, size_t count, luna_err err,
                             const char *part)
{
    luna_msg_job job = sample_job(1);
    job.heatmaps.items = sets;
    job.heatmaps.count = count;
    assert_int_equal(luna_job_check(&job), err);
    if (!strstr(luna_error_text(), part)) fail_msg("no %s: %s", part, luna_error_text());
}

static void test_heatmaps_that_are_refused(void **state)
{
    (void)state;
    static const luna_msg_token many[LUNA_MAX_TOKENS];
    luna_msg_heatmaps sets[2] = {sample_heatmaps(), sample_heatmaps()};
    refused_heatmaps(sets, 2, LUNA_BAD_REQUEST, "twice");
    sets[0].prompt = luna_text_of("other");
    refused_heatmaps(sets, 1, LUNA_BAD_REQUEST, "positive or negative");
    sets[0] = sample_heatmaps();
    sets[0].variant = luna_text_of("");
    refused_heatmaps(sets, 1, LUNA_BAD_REQUEST, "original or modified");
    static const luna_dims bad[] = {
        {{2, 2, 1}, 3},    {{0, 2, 1, 1}, 4},    {{4097, 2, 1, 1}, 4}, {{2, 1, 2, 1}, 4},
        {{2, 2, 0, 1}, 4}, {{2, 2, 1, 1025}, 4}, {{1, 2, 1, 1}, 4}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sets[0] = sample_heatmaps();
        sets[0].shape = bad[i];
        refused_heatmaps(sets, 1, LUNA_BAD_REQUEST, "heatmaps positive original: ");
    }
    //  The bytes are not looked at: one image of two sets, a byte row too many.
    for (size_t i = 0; i < 2; i++) {
        sets[i].prompt = luna_text_of(i ? "negative" : "positive");
        sets[i].variant = luna_text_of("original");
        sets[i].tokens.items = many;
        sets[i].tokens.count = LUNA_MAX_TOKENS;
        sets[i].shape = (luna_dims){{1, LUNA_MAX_TOKENS, 64, i ? 65 : 64}, 4};
        sets[i].maps.len = sets[i].shape.at[3] * (1 << 18);
    }
    refused_heatmaps(sets, 2, LUNA_TOO_LARGE, "at most 33554432");
}

static void test_job_round_trip_without_copy(void **state)
{
    (void)state;
    const luna_pair extra = {luna_text_of("note"), {"{}", 2}};
    luna_msg_job job = sample_job(2), out;
    job.extra.items = &extra;
    job.extra.count = 1;
    size_t len;
    char *data = packed(&job, &len);
    assert_int_equal(len, luna_msg_size(LUNA_MSG_JOB, &job));
    luna_packet *packet;
    assert_int_equal(luna_packet_open(data, len, &packet), LUNA_OK);
    assert_int_equal(luna_packet_type(packet), LUNA_MSG_JOB);
    assert_int_equal(luna_packet_read(packet, &out), LUNA_OK);
    assert_int_equal(out.utc_offset_min, -90);
    assert_int_equal(out.inputs.count, 2);
    assert_true(out.embed_workflow && out.inputs.items[1].subdir);
    assert_int_equal(out.priority, LUNA_PRIORITY_DEFAULT);
    assert_true(luna_text_is(out.extra.items[0].key, "note"));
    const char *tensor = out.inputs.items[1].latent.data;
    assert_true(tensor > data && tensor < data + len);  //  a pointer into the buffer
    assert_memory_equal(tensor, latent, sizeof latent);
    assert_int_equal(luna_job_check(&out), LUNA_OK);
    assert_int_equal(luna_job_images(&out), 4);
    luna_packet_close(&packet);
    assert_null(packet);
    free(data);
}

//  Every prefix and every changed byte of a job either decodes or is refused with a
//  sentence; under the sanitizers this also proves that nothing outside is read.
static void test_truncated_and_damaged_jobs(void **state)
{
    (void)state;
    const luna_msg_heatmaps set = sample_heatmaps();
    luna_msg_job job = sample_job(1);
    job.heatmaps.items = &set;
    job.heatmaps.count = 1;
    size_t len;
    uint8_t *data = packed(&job, &len);
    for (size_t i = 0; i < len; i++) {
        luna_packet *packet = NULL;
        void *copy = malloc(i ? i : 1);
        memcpy(copy, data, i);
        assert_int_not_equal(luna_packet_open(copy, i, &packet), LUNA_OK);
        free(copy);
    }
    for (size_t i = 0; i < len * 8; i++) {
        luna_packet *packet = NULL;
        luna_msg_job out;
        data[i / 8] ^= (uint8_t)(1 << i % 8);
        if (luna_packet_open(data, len, &packet) == LUNA_OK &&
            luna_packet_type(packet) == LUNA_MSG_JOB)
            (void)!luna_packet_read(packet, &out);
        luna_packet_close(&packet);
        data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    free(data);
}

static void test_claims_beyond_the_bytes(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "\xdf\xff\xff\xff\xff",
        "\xdd\xff\xff\xff\xff",
        "\xc6\xff\xff\xff\xff",
        "\xdb\xff\xff\xff\xff",
        "\xdc\xff\xff\x01",
        "\x81\xa1",
        "\xc1",
        "\xd4\x01\x02",
        "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x01",
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++)
        assert_int_equal(luna_scan(hostile[i], strlen(hostile[i])), LUNA_PROTOCOL);
    assert_int_equal(luna_scan("", 0), LUNA_PROTOCOL);
    assert_int_equal(luna_scan("\x01\x02", 2), LUNA_PROTOCOL);
    assert_int_equal(luna_scan("\x80", 1), LUNA_OK);
}

static luna_err open_only(const char *bytes, size_t len)
{
    luna_packet *packet = NULL;
    const luna_err err = luna_packet_open(bytes, len, &packet);
    luna_packet_close(&packet);
    return err;
}

static void test_envelope(void **state)
{
    (void)state;
    static const char no_type[] = "\x81\xa4luna\x01";
    static const char next_version[] = "\x82\xa4luna\x02\xa4type\xa4ping";
    static const char strange_type[] = "\x82\xa4luna\x01\xa4type\xa4pung";
    static const char ping[] = "\x83\xa4luna\x01\xa4type\xa4ping\xa7unknown\x90";
    assert_int_equal(open_only("\x80", 1), LUNA_PROTOCOL);
    assert_int_equal(open_only(no_type, sizeof no_type - 1), LUNA_PROTOCOL);
    assert_int_equal(open_only(next_version, sizeof next_version - 1), LUNA_UNSUPPORTED);
    assert_int_equal(open_only(strange_type, sizeof strange_type - 1), LUNA_PROTOCOL);
    assert_int_equal(open_only(ping, sizeof ping - 1), LUNA_OK);
}

static luna_err read_back(const luna_msg_job *job)
{
    size_t len;
    luna_msg_job out;
    luna_packet *packet = NULL;
    void *data = packed(job, &len);
    luna_err err = luna_packet_open(data, len, &packet);
    if (err == LUNA_OK) err = luna_packet_read(packet, &out);
    luna_packet_close(&packet);
    free(data);
    return err;
}

static void test_limits_and_required_fields(void **state)
{
    (void)state;
    luna_msg_job job = sample_job(1);
    assert_int_equal(read_back(&job), LUNA_OK);
    job.priority = 10;
    assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
    assert_non_null(strstr(luna_error_text(), "'priority'"));
    job = sample_job(LUNA_MAX_INPUTS + 1);
    assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
    assert_non_null(strstr(luna_error_text(), "'inputs'"));
    job = sample_job(1);
    job.vae = (luna_text){0};
    assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
    assert_non_null(strstr(luna_error_text(), "'vae'"));
    job = sample_job(1);
    job.filename = luna_text_of("caf\xe9");
    assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
    assert_non_null(strstr(luna_error_text(), "'filename'"));
    char small[16];
    size_t used;
    job = sample_job(1);
    assert_int_equal(luna_msg_encode(LUNA_MSG_JOB, &job, small, sizeof small, &used),
                     LUNA_TOO_LARGE);
}

//  What a reader would refuse is refused before it leaves, by the same limits.
static void test_nothing_unreadable_leaves(void **state)
{
    (void)state;
    luna_msg_job job = sample_job(1);
    inputs[0].shape.at[1] = (1 << 20) + 1;
    assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
    assert_non_null(strstr(luna_error_text(), "'shape'"));
    job = sample_job(1);
    inputs[0].shape.count = LUNA_MAX_DIMS + 1;
    assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
    static const luna_text bad_keys[] = {{"caf\xe9", 4}, {"a\0b", 3}, {0}};
    for (size_t i = 0; i < sizeof bad_keys / sizeof bad_keys[0]; i++) {
        const luna_pair extra = {bad_keys[i], {"{}", 2}};
        job = sample_job(1);
        job.extra.items = &extra;
        job.extra.count = 1;
        assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
        assert_non_null(strstr(luna_error_text(), "'extra'"));
    }
    const double not_finite[] = {(double)NAN, -(double)INFINITY};
    for (size_t i = 0; i < 2; i++) {
        job = sample_job(1);
        job.min_quality = not_finite[i];
        assert_int_equal(luna_msg_size(LUNA_MSG_JOB, &job), 0);
        assert_non_null(strstr(luna_error_text(), "'min_quality'"));
    }
}

static luna_err read_message(const char *fields, size_t len, const char *named)
{
    luna_packet *packet;
    union {
        luna_msg_grant grant;
        luna_msg_progress progress;
        luna_msg_order order;
    } out;
    char message[128] = "\x83\xa4luna\x01\xa4type";
    const size_t head = strlen(message);
    memcpy(message + head, fields, len);
    assert_int_equal(luna_packet_open(message, head + len, &packet), LUNA_OK);
    const luna_err err = luna_packet_read(packet, &out);
    if (err != LUNA_OK) assert_non_null(strstr(luna_error_text(), named));
    luna_packet_close(&packet);
    return err;
}

//  What could not be sent on is not taken in: an id of zeros is none, and NaN no number.
static void test_nothing_unsendable_comes_in(void **state)
{
    (void)state;
#define READ(fields, named) read_message(fields, sizeof fields - 1, named)
#define ZEROS               "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    assert_int_equal(READ("\xa5grant\xa1x\x01", ""), LUNA_OK);
    assert_int_equal(READ("\xa8progress\xa2id\xc4\x10\0" ZEROS, "'id'"),
                     LUNA_BAD_REQUEST);
    assert_int_equal(READ("\xa6"
                          "cancel\xa2id\xc4\x10\0" ZEROS,
                          "'id'"),
                     LUNA_OK);
}

static void test_floats_are_finite(void **state)
{
    (void)state;
    luna_msg_job job = sample_job(1), out;
    job.min_quality = 0.5;
    size_t len;
    char *data = packed(&job, &len);
    char *at = memmem(data, len, "min_quality\xcb", 12);
    assert_non_null(at);
    const double values[] = {-0.0, 1e300, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < 4; i++) {
        luna_packet *packet;
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits = htobe64(bits);
        memcpy(at + 12, &bits, sizeof bits);
        assert_int_equal(luna_packet_open(data, len, &packet), LUNA_OK);
        assert_int_equal(luna_packet_read(packet, &out),
                         i < 2 ? LUNA_OK : LUNA_BAD_REQUEST);
        if (i >= 2) assert_non_null(strstr(luna_error_text(), "'min_quality'"));
        luna_packet_close(&packet);
    }
    free(data);
}

static void test_wrong_kind_names_the_field(void **state)
{
    (void)state;
    static const char bad[] = "\x83\xa4luna\x01\xa4type\xa4ping\xa5ticks\xa1x";
    luna_packet *packet;
    luna_msg_ping out;
    assert_int_equal(luna_packet_open(bad, sizeof bad - 1, &packet), LUNA_OK);
    assert_int_equal(luna_packet_read(packet, &out), LUNA_BAD_REQUEST);
    assert_non_null(strstr(luna_error_text(), "'ticks'"));
    luna_packet_close(&packet);
}

typedef void spoil(luna_msg_job *job);

static void no_inputs(luna_msg_job *job)
{
    job->inputs.count = 0;
}
static void short_latent(luna_msg_job *job)
{
    (void)job, inputs[0].latent.len = 15;
}
static void zero_width(luna_msg_job *job)
{
    (void)job, inputs[0].shape.at[3] = 0;
}
static void three_dims(luna_msg_job *job)
{
    (void)job, inputs[0].shape.count = 3;
}
static void bad_dtype(luna_msg_job *job)
{
    (void)job, inputs[0].dtype = luna_text_of("int8");
}
static void bad_format(luna_msg_job *job)
{
    (void)job, inputs[0].format = luna_text_of("gif");
}
static void low_quality(luna_msg_job *job)
{
    (void)job, inputs[0].lossy_quality = 69;
}
static void empty_vae(luna_msg_job *job)
{
    job->vae = luna_text_of("");
}
static void relative_dir(luna_msg_job *job)
{
    job->output_dir = luna_text_of("out");
}
static void bad_gate(luna_msg_job *job)
{
    job->quality_gate = luna_text_of("x");
}
static void bad_mode(luna_msg_job *job)
{
    job->save_mode = luna_text_of("x");
}
static void nil_id(luna_msg_job *job)
{
    job->id = (luna_id){{0}};
}
static void huge_dims(luna_msg_job *job)
{
    (void)job;
    inputs[0].shape = (luna_dims){.at = {4096, 1 << 20, 1, 1 << 20, 1 << 20}, .count = 5};
}
static void video(luna_msg_job *job)
{
    (void)job;
    inputs[0].shape = (luna_dims){.at = {1, 1, 2, 1, 2}, .count = 5};
}

static void test_job_check(void **state)
{
    (void)state;
    static const struct {
        spoil *how;
        luna_err err;
    } cases[] = {{no_inputs, LUNA_BAD_REQUEST},    {short_latent, LUNA_BAD_LATENT},
                 {zero_width, LUNA_BAD_LATENT},    {three_dims, LUNA_BAD_LATENT},
                 {bad_dtype, LUNA_BAD_LATENT},     {bad_format, LUNA_BAD_REQUEST},
                 {low_quality, LUNA_BAD_REQUEST},  {empty_vae, LUNA_BAD_REQUEST},
                 {relative_dir, LUNA_BAD_REQUEST}, {bad_gate, LUNA_BAD_REQUEST},
                 {bad_mode, LUNA_BAD_REQUEST},     {nil_id, LUNA_BAD_REQUEST},
                 {huge_dims, LUNA_BAD_LATENT},     {video, LUNA_UNSUPPORTED}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        luna_msg_job job = sample_job(1);
        assert_int_equal(luna_job_check(&job), LUNA_OK);
        cases[i].how(&job);
        if (luna_job_check(&job) != cases[i].err) fail_msg("case %zu", i);
    }
}

//  Who sends a job and when does not make it another one; anything else does.
static void test_job_content(void **state)
{
    (void)state;
    static uint8_t values[200000];
    luna_msg_input input = luna_msg_input_default();
    input.dtype = luna_text_of("float16");
    input.shape = (luna_dims){.at = {1, 4, 250, 100}, .count = 4};
    input.latent = (luna_blob){values, sizeof values};
    luna_msg_job job = luna_msg_job_default();
    job.id = luna_id_new();
    job.client = luna_id_new();
    job.inputs.items = &input;
    job.inputs.count = 1;
    const uint64_t content = luna_job_content(&job);
    assert_true(content != 0);
    job.client = luna_id_new();
    job.created_ms = 77;
    job.utc_offset_min = 60;
    assert_true(luna_job_content(&job) == content);
    job.prompt = (luna_blob){"{}", 2};
    assert_true(luna_job_content(&job) != content);
    job.prompt = (luna_blob){0};
    const size_t changed[] = {0, sizeof values / 2, sizeof values - 1};
    for (size_t i = 0; i < 3; i++) {
        values[changed[i]] ^= 1;
        assert_true(luna_job_content(&job) != content);
        values[changed[i]] ^= 1;
    }
    input.format = luna_text_of("webp");
    assert_true(luna_job_content(&job) != content);
}

static void test_payload_header(void **state)
{
    (void)state;
    uint8_t file[LUNA_PAYLOAD_HEADER_BYTES + 5];
    memcpy(file + LUNA_PAYLOAD_HEADER_BYTES, "hello", 5);
    const luna_blob body = {file + LUNA_PAYLOAD_HEADER_BYTES, 5};
    const luna_payload written = {.id = luna_id_new(),
                                  .accepted_ms = 1234567890123,
                                  .body = body,
                                  .hash = luna_payload_hash(body)};
    luna_payload_header(&written, file);
    luna_payload payload;
    assert_int_equal(luna_payload_open(file, sizeof file, &payload), LUNA_OK);
    assert_int_equal(luna_id_compare(&payload.id, &written.id), 0);
    assert_int_equal(payload.accepted_ms, written.accepted_ms);
    assert_int_equal(payload.hash, written.hash);
    assert_int_equal(luna_payload_verify(&payload), LUNA_OK);
    assert_int_equal(luna_payload_open(file, sizeof file - 1, &payload), LUNA_IO);
    for (size_t i = 0; i < sizeof file; i++) {
        file[i] ^= 1;
        luna_err err = luna_payload_open(file, sizeof file, &payload);
        if (err == LUNA_OK) err = luna_payload_verify(&payload);
        if (err != LUNA_IO) fail_msg("a changed byte %zu went unnoticed", i);
        file[i] ^= 1;
    }
}

static void test_payload_hash_of_pieces(void **state)
{
    (void)state;
    uint8_t body[5000];
    for (size_t i = 0; i < sizeof body; i++) body[i] = (uint8_t)(i * 7);
    luna_payload_sum *sum = luna_payload_sum_new();
    assert_non_null(sum);
    for (size_t piece = 1; piece < sizeof body; piece += 613) {
        luna_payload_sum_start(sum);
        for (size_t at = 0; at < sizeof body; at += piece)
            luna_payload_sum_add(sum, body + at,
                                 piece < sizeof body - at ? piece : sizeof body - at);
        assert_int_equal(luna_payload_sum_end(sum),
                         luna_payload_hash((luna_blob){body, sizeof body}));
    }
    luna_payload_sum_free(&sum);
    assert_null(sum);
}

static void test_formats_as_words(void **state)
{
    (void)state;
    static const struct {
        const char *words, *written;
    } rows[] = {{"png webp jpeg avif jxl", "png webp jpeg avif jxl"},
                {"jxl png", "png jxl"},
                {"png", "png"},
                {"  heic  avif pn ng png\t ", "avif"},
                {"", NULL},
                {NULL, NULL}};
    char words[LUNA_FORMATS_BYTES];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const luna_formats set = luna_formats_parse(luna_text_of(rows[i].words));
        const luna_text text = luna_formats_write(set, words);
        if (rows[i].written)
            assert_string_equal(text.data, rows[i].written);
        else
            assert_null(text.data);
        assert_int_equal(luna_formats_parse(text), set);
    }
    luna_formats_write(LUNA_FORMATS_ALL, words);
    assert_int_equal(luna_formats_parse(luna_text_of(words)), LUNA_FORMATS_ALL);
    assert_int_equal(luna_formats_of((luna_text){"pngx", 4}), 0);
    assert_int_equal(luna_formats_of((luna_text){"pngx", 3}), 1);
}

static void test_formats_of_a_job(void **state)
{
    (void)state;
    luna_msg_job job = sample_job(3);
    inputs[1].format = luna_text_of("avif");
    inputs[2].format = luna_text_of("heic");
    assert_int_equal(luna_formats_of_job(&job),
                     luna_formats_parse(luna_text_of("png avif")));
}

static void test_arena(void **state)
{
    (void)state;
    luna_arena arena = {0};
    assert_null(luna_arena_alloc(&arena, SIZE_MAX / 4, 8));
    for (size_t i = 1; i < 300; i++) {
        uint8_t *item = luna_arena_alloc(&arena, i, 40);
        for (size_t j = 0; j < i * 40; j++) assert_int_equal(item[j], 0);
        memset(item, 0xff, i * 40);
    }
    assert_string_equal(luna_arena_text(&arena, "latent", 3), "lat");
    luna_arena_free(&arena);
    assert_null(arena.blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_round_trip_without_copy),
        cmocka_unit_test(test_heatmaps_round_trip),
        cmocka_unit_test(test_heatmaps_are_content),
        cmocka_unit_test(test_heatmaps_that_are_refused),
        cmocka_unit_test(test_truncated_and_damaged_jobs),
        cmocka_unit_test(test_claims_beyond_the_bytes),
        cmocka_unit_test(test_envelope),
        cmocka_unit_test(test_limits_and_required_fields),
        cmocka_unit_test(test_nothing_unreadable_leaves),
        cmocka_unit_test(test_nothing_unsendable_comes_in),
        cmocka_unit_test(test_floats_are_finite),
        cmocka_unit_test(test_wrong_kind_names_the_field),
        cmocka_unit_test(test_job_check),
        cmocka_unit_test(test_job_content),
        cmocka_unit_test(test_payload_header),
        cmocka_unit_test(test_payload_hash_of_pieces),
        cmocka_unit_test(test_formats_as_words),
        cmocka_unit_test(test_formats_of_a_job),
        cmocka_unit_test(test_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
