//  The texts of an image file: which, in which order, and what is left out.

#include "kit.h"

#include <libdeflate.h>
#include <math.h>
#include <stdlib.h>

#include "decoder/worker/json_members.h"
#include "decoder/worker/metadata.h"

#define BLOB(text) ((luna_blob){text, sizeof(text) - 1})

static luna_metadata metadata;

static luna_msg_job job_with(luna_msg_input *input)
{
    *input = luna_msg_input_default();
    input->affix = TEXT("FINAL");
    input->format = TEXT("png");
    input->shape = (luna_dims){{2, 4, 8, 8}, 4};
    luna_msg_job job = luna_msg_job_default();
    job.id = id_of(1);
    job.inputs.items = input;
    job.inputs.count = 1;
    job.created_ms = 1763930096789;  //  2025-11-23 20:34:56.789 UTC
    job.utc_offset_min = -150;
    return job;
}

static void expect(size_t at, const char *keyword, const char *text)
{
    assert_true(at < metadata.count);
    assert_string_equal(metadata.texts[at].keyword, keyword);
    assert_int_equal(metadata.texts[at].len, strlen(text));
    assert_memory_equal(metadata.texts[at].text, text, strlen(text));
}

static void collect(const luna_msg_job *job, size_t index)
{
    const luna_metadata_of of = {.job = job, .index = index, .width = 640, .height = 480};
    assert_int_equal(luna_metadata_collect(&of, &metadata), LUNA_OK);
}

static void everything_in_its_order(void **state)
{
    (void)state;
    luna_msg_input input;
    luna_msg_job job = job_with(&input);
    const luna_pair extra[] = {{TEXT("zeta"), BLOB("{\"z\":1}")},
                               {TEXT("alpha"), BLOB("[]")}};
    job.prompt = BLOB("{\"3\":{}}");
    job.workflow = BLOB("{\"nodes\":[]}");
    job.metadata = BLOB(
        "{\"seed\": 18446744073709551615, \"sampler\":\"euler \\u00e9\", "
        "\"cfg\":7.50,\"on\":true, \"sub\" : {\"a\":[1,\"}\"]} }");
    job.extra.items = extra;
    job.extra.count = 2;
    job.model_name = TEXT("sub\\model.safetensors");
    job.custom_metadata = TEXT("mine");
    collect(&job, 1);
    expect(0, "prompt", "{\"3\":{}}");
    expect(1, "workflow", "{\"nodes\":[]}");
    expect(2, "zeta", "{\"z\":1}");
    expect(3, "alpha", "[]");
    assert_string_equal(metadata.texts[4].keyword, "generation_metadata");
    assert_int_equal(metadata.texts[4].len, job.metadata.len);
    expect(5, "gen_seed", "18446744073709551615");
    expect(6, "gen_sampler", "euler \xc3\xa9");
    expect(7, "gen_cfg", "7.50");
    expect(8, "gen_on", "true");
    expect(9, "gen_sub", "{\"a\":[1,\"}\"]}");
    expect(10, "image_type", "FINAL");
    expect(11, "model_name", "model");
    expect(12, "model_path", "sub/model");
    expect(13, "custom_metadata", "mine");
    expect(14, "save_timestamp", "2025-11-23T18:04:56-02:30");
    expect(15, "batch_index", "1");
    assert_int_equal(metadata.count, 16);
    for (size_t i = 0; i < metadata.count; i++)
        assert_int_equal(metadata.texts[i].kind,
                         i < 4 ? LUNA_TEXT_GRAPH : LUNA_TEXT_NOTE);
    luna_arena_free(&metadata.memory);
}

static void parameters_as_automatic1111_writes_them(void **state)
{
    (void)state;
    luna_msg_input input;
    luna_msg_job job = job_with(&input);
    job.parameters = true;
    job.metadata = BLOB(
        "{\"positive\": \"a \\\"cat\\\"\\n<lora:x:1>\", \"negative\": \"dog\", "
        "\"steps\": 20, \"sampler_name\": \"dpmpp_2m\", \"scheduler\": \"karras\", "
        "\"cfg\": 7.50, \"seed\": 18446744073709551615, \"model_name\": \"m\", "
        "\"denoise\": 0.5, \"clip_skip\": -2, \"model_hash\": null}");
    collect(&job, 0);
    expect(
        0, "parameters",
        "a \"cat\"\n<lora:x:1>\nNegative prompt: dog\nSteps: 20, Sampler: DPM++ 2M "
        "Karras, CFG scale: 7.50, Seed: 18446744073709551615, Size: 640x480, Model: m, "
        "Denoising strength: 0.5, Clip skip: 2, Version: ComfyUI");
    assert_int_equal(metadata.texts[0].kind, LUNA_TEXT_PARAMETERS);
    luna_arena_free(&metadata.memory);
    //  The producer's own come first; without generation metadata there are none.
    const luna_pair own = {TEXT("parameters"), BLOB("mine")};
    job.extra.items = &own;
    job.extra.count = 1;
    collect(&job, 0);
    expect(0, "parameters", "mine");
    assert_int_equal(metadata.texts[0].kind, LUNA_TEXT_PARAMETERS);
    assert_string_equal(metadata.texts[1].keyword, "generation_metadata");
    luna_arena_free(&metadata.memory);
    job.extra.count = 0;
    job.metadata = BLOB("[1]");
    collect(&job, 0);
    assert_string_equal(metadata.texts[0].keyword, "generation_metadata");
    luna_arena_free(&metadata.memory);
}

static void texts_as_json(void **state)
{
    (void)state;
    luna_msg_input input;
    luna_msg_job job = job_with(&input);
    const char *text;
    size_t len;
    job.prompt = BLOB("{\"a\": \"\\u00e9\"}");
    collect(&job, 1);
    assert_int_equal(luna_metadata_json(&metadata, &text, &len), LUNA_OK);
    static const char want[] =
        "{\n  \"prompt\": \"{\\\"a\\\": \\\"\\\\u00e9\\\"}\",\n  \"image_type\": "
        "\"FINAL\",\n"
        "  \"save_timestamp\": \"2025-11-23T18:04:56-02:30\",\n  \"batch_index\": "
        "\"1\"\n}\n";
    assert_int_equal(len, sizeof want - 1);
    assert_memory_equal(text, want, len);
    luna_arena_free(&metadata.memory);
}

//  A picture is never lost over a text that PNG cannot hold.
static void odd_texts_are_left_out(void **state)
{
    (void)state;
    luna_msg_input input;
    luna_msg_job job = job_with(&input);
    const luna_pair extra[] = {
        {TEXT("workflow"), BLOB("again")}, {TEXT(" lead"), BLOB("x")},
        {TEXT("two  spaces"), BLOB("x")},  {TEXT("new\nline"), BLOB("x")},
        {TEXT("caf\xc3\xa9"), BLOB("x")},  {TEXT(""), BLOB("x")},
        {TEXT("nul"), BLOB("a\0b")},       {TEXT("latin"), BLOB("\xe9")},
        {TEXT("good"), BLOB("kept")}};
    job.workflow = BLOB("{}");
    job.extra.items = extra;
    job.extra.count = sizeof extra / sizeof extra[0];
    collect(&job, 0);
    expect(0, "workflow", "{}");
    expect(1, "good", "kept");
    expect(2, "image_type", "FINAL");
    luna_arena_free(&metadata.memory);
}

static size_t count_members(const char *text)
{
    luna_members members = luna_members_of((luna_blob){text, strlen(text)});
    luna_text key, value;
    size_t count = 0;
    while (luna_members_next(&members, &key, &value)) count++;
    return count;
}

static void members_of_anything(void **state)
{
    (void)state;
    assert_int_equal(count_members(""), 0);
    assert_int_equal(count_members("[1]"), 0);
    assert_int_equal(count_members("{}"), 0);
    assert_int_equal(count_members("{\"a\":1"), 0);
    assert_int_equal(count_members("{\"a\":1}"), 1);
    assert_int_equal(count_members("{\"a\":\"\\\"}\",\"b\":{}}"), 2);
    assert_int_equal(count_members("{\"a\":[[[,\"b\":1}"), 0);
    assert_int_equal(count_members("{\"a\":]}"), 0);
    assert_int_equal(count_members("{\"a\""), 0);
    assert_int_equal(count_members("{\"a\\"), 0);
    assert_int_equal(count_members("{\"a\":1 \"b\":2}"), 1);
}

//  ---- heatmaps -----------------------------------------------------------------------

static size_t from_base64(const char *text, uint8_t *out)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = 0;
    uint32_t bits = 0;
    int have = 0;
    for (; *text != '"' && *text != '='; text++) {
        const char *digit = strchr(digits, *text);
        assert_non_null(digit);
        bits = bits << 6 | (uint32_t)(digit - digits);
        have += 6;
        if (have < 8) continue;
        have -= 8;
        out[len++] = (uint8_t)(bits >> have);
    }
    return len;
}

//  The map behind the next "heatmap" of the text is these values, to the bit; where the
//  text goes on.
static const char *expect_map(const char *text, const float *values, size_t count)
{
    static uint8_t packed[4096], plain[4096];
    size_t len = 0;
    const char *at = strstr(text, "\"heatmap\": \"");
    assert_non_null(at);
    const size_t packed_len = from_base64(at + strlen("\"heatmap\": \""), packed);
    struct libdeflate_decompressor *gzip = libdeflate_alloc_decompressor();
    assert_int_equal(
        libdeflate_gzip_decompress(gzip, packed, packed_len, plain, sizeof plain, &len),
        LIBDEFLATE_SUCCESS);
    libdeflate_free_decompressor(gzip);
    assert_int_equal(len, count * sizeof *values);
    assert_memory_equal(plain, values, len);
    return at + 1;
}

static const char *expect_text(const char *at, const char *part)
{
    const char *found = strstr(at, part);
    if (!found) fail_msg("no %s in %s", part, at);
    return found;
}

static luna_msg_heatmaps heatmaps_of(const char *prompt, const char *variant,
                                     const luna_msg_token *tokens, luna_dims shape,
                                     const void *maps)
{
    luna_msg_heatmaps set = {.prompt = luna_text_of(prompt),
                             .variant = luna_text_of(variant),
                             .shape = shape,
                             .maps.data = maps};
    set.tokens.items = tokens;
    set.tokens.count = shape.at[1];
    set.maps.len = shape.at[0] * shape.at[1] * shape.at[2] * shape.at[3] * sizeof(float);
    return set;
}

//  Two images of two tokens, 2 x 3 places; the second image is asked for.
static void heatmaps_to_the_bit(void **state)
{
    (void)state;
    luna_msg_input input;
    luna_msg_job job = job_with(&input);
    const luna_msg_token tokens[] = {{TEXT("a \"cat\""), 2}, {{0}, 7}};
    static const float maps[2][2][6] = {
        {{9, 9, 9, 9, 9, 9}, {9, 9, 9, 9, 9, 9}},
        {{0, 1.5f, 1, 0, 0, 0.75f}, {-0.0f, -1e-42f, 0, 0, 0, -3}}};
    static const float same[] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f};
    const luna_msg_heatmaps sets[] = {
        heatmaps_of("positive", "original", tokens, (luna_dims){{2, 2, 2, 3}, 4}, maps),
        heatmaps_of("negative", "modified", tokens, (luna_dims){{1, 1, 3, 2}, 4}, same)};
    job.heatmaps.items = sets;
    job.heatmaps.count = 2;
    collect(&job, 1);
    const luna_image_text *text = &metadata.texts[metadata.count - 1];
    assert_string_equal(text->keyword, "daam_heatmaps");
    assert_int_equal(text->len, strlen(text->text));
    const char *at = expect_text(
        text->text,
        "{\"encoding\": \"base64 of gzip of float32, little-endian, rows from the top\", "
        "\"positive\": [{\"token\": \"a \\\"cat\\\"\", \"token_index\": 2, \"width\": 3, "
        "\"height\": 2, \"max_attention\": 1.5, \"mean_attention\": 0.541666667, ");
    expect_text(at, "\"coverage_area\": 0.5, \"bbox\": [1, 0, 2, 2], \"heatmap\": \"");
    at = expect_map(at, maps[1][0], 6);
    at = expect_text(at, "}, {\"token\": \"\", \"token_index\": 7, ");
    expect_text(at, "\"coverage_area\": 0, \"bbox\": [0, 0, 0, 0], \"heatmap\"");
    at = expect_map(at, maps[1][1], 6);
    at = expect_text(at, "}], \"negative_modified\": [{\"token\": ");
    at = expect_map(at, same, 6);
    assert_string_equal(strchr(at, '}'), "}]}");
    luna_arena_free(&metadata.memory);
}

static bool has_heatmaps(const luna_msg_job *job, size_t index)
{
    collect(job, index);
    const bool has =
        strcmp(metadata.texts[metadata.count - 1].keyword, "daam_heatmaps") == 0;
    luna_arena_free(&metadata.memory);
    return has;
}

static void heatmaps_where_there_are_some(void **state)
{
    (void)state;
    luna_msg_input input;
    luna_msg_job job = job_with(&input);
    const luna_msg_token tokens[] = {{TEXT("cat"), 1}, {TEXT("dog"), 2}};
    static const float maps[2] = {NAN, 1};
    const luna_msg_heatmaps two =
        heatmaps_of("positive", "original", tokens, (luna_dims){{2, 1, 1, 1}, 4}, maps);
    const luna_msg_heatmaps one =
        heatmaps_of("positive", "original", tokens, (luna_dims){{1, 2, 1, 1}, 4}, maps);
    assert_false(has_heatmaps(&job, 0));
    job.heatmaps.items = &two;
    job.heatmaps.count = 1;
    assert_true(has_heatmaps(&job, 1));
    assert_false(has_heatmaps(&job, 2));  //  a batch that is larger than the heatmaps'
    job.heatmaps.items = &one;
    assert_true(has_heatmaps(&job, 2));
    job.embed_workflow = false;
    assert_false(has_heatmaps(&job, 0));
    job.sidecar = true;
    assert_true(has_heatmaps(&job, 0));
    collect(&job, 0);  //  what JSON has no number for
    const char *text = metadata.texts[metadata.count - 1].text;
    assert_null(strstr(text, "cat"));
    expect_map(expect_text(text, "\"positive\": [{\"token\": \"dog\""), &maps[1], 1);
    luna_arena_free(&metadata.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_in_its_order),
        cmocka_unit_test(parameters_as_automatic1111_writes_them),
        cmocka_unit_test(texts_as_json),
        cmocka_unit_test(odd_texts_are_left_out),
        cmocka_unit_test(members_of_anything),
        cmocka_unit_test(heatmaps_to_the_bit),
        cmocka_unit_test(heatmaps_where_there_are_some)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
