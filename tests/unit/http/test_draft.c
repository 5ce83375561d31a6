//  Bodies become jobs: exact fields, documents byte for byte, and a named place for
//  every mistake.

#include "broker/http/base64.h"
#include "broker/http/draft.h"
#include "broker/http/listen.h"
#include "broker/http/value.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const luna_id client_id = {{1, 2, 3}};
static const luna_id no_key;

//  One draft with the body it borrows.
typedef struct made {
    luna_draft draft;
    char *body;
} made;

static luna_err make_json(made *m, const char *json)
{
    const size_t len = strlen(json);
    m->body = malloc(len ? len : 1);
    assert_non_null(m->body);
    memcpy(m->body, json, len);
    luna_draft_init(&m->draft);
    LUNA_TRY(luna_draft_json(&m->draft, m->body, len));
    return luna_draft_finish(&m->draft, &client_id, &no_key);
}

static void drop(made *m)
{
    luna_draft_free(&m->draft);
    free(m->body);
}

//  The body is refused with `err`, and the sentence says `words`.
static void refused(const char *json, luna_err err, const char *words)
{
    made m;
    const luna_err got = make_json(&m, json);
    if (got != err || !strstr(luna_error_text(), words))
        fail_msg("%s\n  gave %s: %s\n  wanted %s: %s", json, luna_err_name(got),
                 luna_error_text(), luna_err_name(err), words);
    drop(&m);
}

#define ONE "\"data\":\"AAECAwQFBgc=\",\"dtype\":\"float16\",\"shape\":[1,4,1,1]"

static void assert_text(luna_text text, const char *expected)
{
    if (!luna_text_is(text, expected))
        fail_msg("'%.*s' is not '%s'", (int)text.len, text.data ? text.data : "",
                 expected);
}

static void assert_bytes(luna_blob blob, const char *expected)
{
    assert_int_equal(blob.len, strlen(expected));
    assert_memory_equal(blob.data, expected, blob.len);
}

static void one_latent_with_defaults(void **state)
{
    static const uint8_t bytes[] = {0, 1, 2, 3, 4, 5, 6, 7};
    made m;
    (void)state;
    assert_int_equal(make_json(&m, "{" ONE "}"), LUNA_OK);
    const luna_msg_job *job = &m.draft.job;
    assert_int_equal(luna_id_compare(&job->client, &client_id), 0);
    assert_false(luna_id_is_nil(&job->id));
    assert_true(job->created_ms > 1000000000000);
    assert_text(job->vae, "auto");
    assert_int_equal(job->priority, 5);
    assert_true(job->embed_workflow);
    assert_null(job->prompt.data);
    assert_int_equal(job->inputs.count, 1);
    const luna_msg_input *input = &job->inputs.items[0];
    assert_text(input->format, "png");
    assert_text(input->dtype, "float16");
    assert_int_equal(input->png_compression, 4);
    assert_int_equal(input->lossy_quality, 90);
    assert_true(input->subdir);
    assert_int_equal(input->shape.count, 4);
    assert_int_equal(input->shape.at[1], 4);
    assert_int_equal(input->latent.len, 8);
    assert_memory_equal(input->latent.data, bytes, 8);
    drop(&m);
}

static void every_setting(void **state)
{
    made m;
    (void)state;
    assert_int_equal(
        make_json(
            &m,
            "{\"vae\":\"flux\",\"output_dir\":\"/out\",\"save_path\":\"a/%time:YYYY%\","
            "\"filename\":\"n\",\"model_name\":\"m\",\"filename_index\":"
            "18446744073709551615,"
            "\"save_mode\":\"database_store\",\"quality_gate\":\"both\","
            "\"min_quality_threshold\":0.25,\"embed_workflow\":false,\"round_pixels\":"
            "true,"
            "\"priority\":9,\"custom_metadata\":\"caf\\u00e9 "
            "\\\"x\\\"\",\"prompt_id\":\"p\","
            "\"job_id\":\"0192F1C2-a5b0-7c3d-8e4f-5061728394a5\","
            "\"timestamp\":\"2026-01-05T17:03:11.25+01:30\",\"png_compression\":1,"
            "\"nobody\":{\"knows\":[NaN]},"
            "\"latents\":[{" ONE
            ",\"affix\":\"FINAL\",\"format\":\"webp\",\"subdir\":false,"
            "\"lossless_webp\":true,\"lossy_quality\":70},"
            "{\"data\":\"AAAAAA==\",\"dtype\":\"torch.float32\",\"shape\":[1,1,1,1,1],"
            "\"png_compression\":9,\"affix\":null}]}"),
        LUNA_OK);
    const luna_msg_job *job = &m.draft.job;
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&job->id, id);
    assert_string_equal(id, "0192f1c2-a5b0-7c3d-8e4f-5061728394a5");
    assert_text(job->vae, "flux");
    assert_text(job->output_dir, "/out");
    assert_text(job->save_path, "a/%time:YYYY%");
    assert_text(job->filename, "n");
    assert_text(job->model_name, "m");
    assert_true(job->filename_index == UINT64_MAX);
    assert_text(job->save_mode, "database_store");
    assert_text(job->quality_gate, "both");
    assert_true(job->min_quality > 0.2499 && job->min_quality < 0.2501);
    assert_false(job->embed_workflow);
    assert_true(job->round_pixels);
    assert_int_equal(job->priority, 9);
    assert_text(job->custom_metadata, "caf\xc3\xa9 \"x\"");
    assert_text(job->prompt_id, "p");
    assert_int_equal(job->created_ms, 1767627191250);
    assert_int_equal(job->utc_offset_min, 90);
    assert_int_equal(job->inputs.count, 2);
    assert_text(job->inputs.items[0].affix, "FINAL");
    assert_text(job->inputs.items[0].format, "webp");
    assert_false(job->inputs.items[0].subdir);
    assert_true(job->inputs.items[0].lossless_webp);
    assert_int_equal(job->inputs.items[0].lossy_quality, 70);
    assert_int_equal(job->inputs.items[0].png_compression, 1);
    assert_int_equal(job->inputs.items[1].png_compression, 9);
    assert_null(job->inputs.items[1].affix.data);
    assert_text(job->inputs.items[1].dtype, "float32");
    assert_int_equal(job->inputs.items[1].shape.count, 5);
    assert_int_equal(m.draft.ignored_count, 1);
    assert_text(m.draft.ignored[0], "nobody");
    drop(&m);
}

#define PROMPT                                                                    \
    "{ \"3\" : {\"seed\": 18446744073709551615 , \"cfg\": 7.0,\n\t \"cfg\":7.00," \
    "\"t\":\"caf\\u00e9 \xe6\xbc\xa2\\/\", \"is_changed\":[NaN]} }"

static void documents_stay_byte_for_byte(void **state)
{
    made m;
    (void)state;
    assert_int_equal(
        make_json(&m, "{\"prompt\": " PROMPT " ,\"metadata\":{\"seed\":1e400,\"a\" :1}, "
                      "\"extra_pnginfo\":{\"workflow\":{ \"nodes\":[ ]},\"a\\u0062\" : "
                      "[1.0, 2], \"none\":null, \"s\":\"x\\n\"}," ONE "}"),
        LUNA_OK);
    const luna_msg_job *job = &m.draft.job;
    assert_bytes(job->prompt, PROMPT);
    assert_bytes(job->metadata, "{\"seed\":1e400,\"a\" :1}");
    assert_bytes(job->workflow, "{ \"nodes\":[ ]}");
    assert_int_equal(job->extra.count, 2);
    assert_text(job->extra.items[0].key, "ab");
    assert_bytes(job->extra.items[0].value, "[1.0, 2]");
    assert_bytes(job->extra.items[1].value, "\"x\\n\"");
    drop(&m);
}

static void a_string_is_the_document_itself(void **state)
{
    made m;
    (void)state;
    assert_int_equal(
        make_json(&m,
                  "{\"prompt\":\"{ \\\"seed\\\":18446744073709551615, "
                  "\\\"t\\\":\\\"\\\\u00e9\\u00e9\\\"}\",\"workflow\":\"{}\","
                  "\"extra_pnginfo\":\"{\\\"k\\\": [ 1 ]}\"," ONE "}"),
        LUNA_OK);
    assert_bytes(m.draft.job.prompt,
                 "{ \"seed\":18446744073709551615, \"t\":\"\\u00e9\xc3\xa9\"}");
    assert_bytes(m.draft.job.workflow, "{}");
    assert_bytes(m.draft.job.extra.items[0].value, "[ 1 ]");
    drop(&m);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    refused("", LUNA_BAD_REQUEST, "line 1, column 1");
    refused("[]", LUNA_BAD_REQUEST, "an object was expected");
    refused("{\n\"vae\":\"x\",\n}", LUNA_BAD_REQUEST, "line 3, column 1");
    refused("{}", LUNA_BAD_REQUEST, "no latents");
    refused("{\"latents\":[]}", LUNA_BAD_REQUEST, "1 to 5 latents");
    refused("{\"latents\":{}}", LUNA_BAD_REQUEST, "latents must be an array");
    refused("{\"latents\":[3]}", LUNA_BAD_REQUEST, "an object was expected");
    refused("{\"latents\":[{" ONE "}]," ONE "}", LUNA_BAD_REQUEST, "not both");
    refused("{\"latents\":[{},{},{},{},{},{}]}", LUNA_BAD_REQUEST, "at most 5");
    refused("{\"latents\":[{" ONE "},{\"dtype\":\"float16\"}]}", LUNA_BAD_REQUEST,
            "latents[1]: data is missing");
    refused("{\"data\":\"AAAA\"}", LUNA_BAD_REQUEST, "dtype or shape");
    refused("{\"vae\":\"a\",\"vae\":\"b\"," ONE "}", LUNA_BAD_REQUEST,
            "vae is given twice");
    refused("{\"vae\":3," ONE "}", LUNA_BAD_REQUEST, "vae must be a text");
    refused("{\"vae\":\"\"," ONE "}", LUNA_BAD_REQUEST, "vae is empty");
    refused("{\"priority\":-1," ONE "}", LUNA_BAD_REQUEST, "priority must be");
    refused("{\"priority\":1.5," ONE "}", LUNA_BAD_REQUEST, "priority must be");
    refused("{\"filename_index\":18446744073709551616," ONE "}", LUNA_BAD_REQUEST,
            "2^64");
    refused("{\"subdir\":[]," ONE "}", LUNA_BAD_REQUEST, "subdir must be");
    refused("{\"min_quality\":NaN," ONE "}", LUNA_BAD_REQUEST, "min_quality must be");
    refused("{\"job_id\":\"7\"," ONE "}", LUNA_BAD_REQUEST, "job_id must be a UUID");
    refused("{\"timestamp\":\"today\"," ONE "}", LUNA_BAD_REQUEST, "timestamp must be");
    refused("{\"prompt\":3," ONE "}", LUNA_BAD_REQUEST, "prompt must be an object");
    refused("{\"prompt\":\"a\\u0000b\"," ONE "}", LUNA_BAD_REQUEST, "u0000");
    refused("{\"metadata\":[]," ONE "}", LUNA_BAD_REQUEST, "metadata must be an object");
    refused("{\"workflow\":{},\"extra_pnginfo\":{\"workflow\":{}}," ONE "}",
            LUNA_BAD_REQUEST, "workflow is given twice");
    refused("{\"save_mode\":\"x\"," ONE "}", LUNA_BAD_REQUEST, "save_mode");
    refused("{\"output_dir\":\"rel\"," ONE "}", LUNA_BAD_REQUEST, "absolute");
    refused("{\"data\":\"AAAA\",\"dtype\":\"int8\",\"shape\":[1,1,1,3]}",
            LUNA_BAD_REQUEST, "dtype must be float32");
    refused("{\"data\":\"AAAA\",\"dtype\":\"float32\",\"shape\":[1,1,1,3]}",
            LUNA_BAD_LATENT, "do not match");
    refused("{\"data\":\"AAAA\",\"dtype\":\"float32\",\"shape\":[1,1,1]}",
            LUNA_BAD_LATENT, "shape must be");
    refused("{\"data\":\"AAAA\",\"dtype\":\"float32\",\"shape\":[1,1,1,1,1,1]}",
            LUNA_BAD_REQUEST, "too many dimensions");
    refused("{\"data\":\"AA*A\",\"dtype\":\"float32\",\"shape\":[1,1,1,1]}",
            LUNA_BAD_REQUEST,
            "latents[0].data: not base64: the byte 0x2a at character 2");
}

static luna_err decode(const char *text, char *out, size_t *len)
{
    *len = strlen(text);
    char *copy = malloc(*len ? *len : 1);
    assert_non_null(copy);
    memcpy(copy, text, *len);
    const luna_err err = luna_base64_decode(copy, len);
    if (err == LUNA_OK) memcpy(out, copy, *len);
    free(copy);
    return err;
}

static void base64_is_strict(void **state)
{
    static const char *const good[][2] = {{"", ""},
                                          {"Zg==", "f"},
                                          {"Zm8=", "fo"},
                                          {"Zm9v", "foo"},
                                          {"Zm9vYg==", "foob"},
                                          {"Zm9vYmE=", "fooba"},
                                          {"Zm9vYmFy", "foobar"},
                                          {"Zm9v\\nYmFy\\r\\n", "foobar"},
                                          {" Zm 9vYmE = ", "fooba"},
                                          {"Pz8\\/", "???"}};
    static const char *const bad[] = {"Z",
                                      "Zg",
                                      "Zg=",
                                      "Zh==",
                                      "Zm9=",
                                      "Zg==Zg==",
                                      "====",
                                      "Z===",
                                      "Zm9v=",
                                      "Zm-v",
                                      "Zm_v",
                                      "Zm9vYg=v",
                                      "\\u0041AAA",
                                      "Zm9v\\",
                                      "\xc3\xa9"
                                      "AA",
                                      "Zg==Zm9v"};
    char out[64];
    size_t len;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(decode(good[i][0], out, &len), LUNA_OK);
        assert_int_equal(len, strlen(good[i][1]));
        assert_memory_equal(out, good[i][1], len);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (decode(bad[i], out, &len) != LUNA_BAD_REQUEST) fail_msg("taken: %s", bad[i]);
}

static void times(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
        int64_t offset;
    } good[] = {{"1767627191250", 1767627191250, 9999},
                {"2026-01-05T15:33:11Z", 1767627191000, 0},
                {"2026-01-05 10:03:11.1239-0530", 1767627191123, -330}};
    static const char *const bad[] = {"",
                                      "x",
                                      "2026-01-05",
                                      "2026-01-05T15:33:11X",
                                      "2026-01-05T15:33:11+1",
                                      "-1",
                                      "99999999999999999",
                                      "2026-02-29T15:33:11Z",
                                      "2026-13-05T15:33:11Z",
                                      "2026-00-05T15:33:11Z",
                                      "2026-01-05T24:00:00Z",
                                      "2026-01-05T15:99:11+01:00",
                                      "2026-01--5T15:33:11Z"};
    uint64_t ms;
    int64_t offset;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const luna_text text = luna_text_of(good[i].text);
        assert_int_equal(luna_http_time("t", text, &ms, &offset), LUNA_OK);
        assert_int_equal(ms, good[i].ms);
        if (good[i].offset != 9999) assert_int_equal(offset, good[i].offset);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(luna_http_time("t", luna_text_of(bad[i]), &ms, &offset),
                         LUNA_BAD_REQUEST);
}

static void hosts(void **state)
{
    static const char *const good[] = {"localhost", "LOCALHOST:1", "127.0.0.1:65535",
                                       "[::1]", "[::1]:80"};
    static const char *const bad[] = {
        "",           "evil.example",    "localhost.evil", "127.0.0.1.nip",
        "localhost:", "localhost:99999", "localhost:80x",  "[::1]x",
        "0.0.0.0"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!luna_host_is_loopback(good[i])) fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (luna_host_is_loopback(bad[i])) fail_msg("taken: %s", bad[i]);
}

//  A latent that is not to be saved is no input; the others move up.
static void a_latent_may_be_left_out(void **state)
{
    made m;
    (void)state;
    assert_int_equal(
        make_json(&m, "{\"sidecar\":true,\"parameters\":true,\"latents\":[{" ONE
                      ",\"format\":\"no save\"},{" ONE ",\"affix\":\"B\"}]}"),
        LUNA_OK);
    assert_int_equal(m.draft.job.inputs.count, 1);
    assert_text(m.draft.job.inputs.items[0].affix, "B");
    assert_true(m.draft.job.sidecar && m.draft.job.parameters);
    assert_true(m.draft.job.min_quality > 0.29 && m.draft.job.min_quality < 0.31);
    drop(&m);
    refused("{\"latents\":[{" ONE ",\"format\":\"no save\"}]}", LUNA_BAD_REQUEST,
            "1 to 5 latents");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_latent_with_defaults),
        cmocka_unit_test(every_setting),
        cmocka_unit_test(a_latent_may_be_left_out),
        cmocka_unit_test(documents_stay_byte_for_byte),
        cmocka_unit_test(a_string_is_the_document_itself),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(base64_is_strict),
        cmocka_unit_test(times),
        cmocka_unit_test(hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
