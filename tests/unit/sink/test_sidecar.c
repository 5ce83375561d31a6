//  The file beside a picture, and who may read both: names, crashes at every step, what
//  is somebody else's.

#include "sink_test.h"

#include <errno.h>

#define TEXT "{\n  \"prompt\": \"{}\"\n}\n"

static int setup(void **state)
{
    *state = open_sink(NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    luna_sink *sink = *state;
    luna_sink_close(&sink);
    remove_tree(ROOT);
    return 0;
}

static luna_image with_sidecar(const luna_name *name)
{
    luna_image image = make_image(luna_id_new(), name, "pixels");
    image.sidecar = TEXT;
    image.sidecar_len = strlen(TEXT);
    return image;
}

static void test_beside_the_picture(void **state)
{
    const luna_name name = make_name("a", "img");
    luna_image_record record;
    luna_image image = with_sidecar(&name);
    put_ok(*state, &image, &record);
    check_content(ROOT "/a/img.png", "pixels");
    check_content(ROOT "/a/img.png.json", TEXT);
    put_ok(*state, &image, &record);
    image.key.job = luna_id_new();
    put_ok(*state, &image, &record);
    check_content(ROOT "/a/img_00001.png.json", TEXT);
    assert_int_equal(count_names(ROOT "/a", false), 4);
    assert_int_equal(count_names(ROOT "/a", true), 0);
}

//  A name whose sidecar would be somebody else's file is not free.
static void test_a_name_with_a_stranger_beside(void **state)
{
    const luna_name name = make_name("", "img");
    luna_image_record record;
    luna_image image = with_sidecar(&name);
    FILE *mine = fopen(ROOT "/img.png.json", "w");
    assert_non_null(mine);
    fputs("mine", mine);
    fclose(mine);
    put_ok(*state, &image, &record);
    check_content(ROOT "/img.png.json", "mine");
    check_content(ROOT "/img_00001.png.json", TEXT);
    //  Without a sidecar the name is free.
    image = make_image(luna_id_new(), &name, "plain");
    put_ok(*state, &image, &record);
    check_content(ROOT "/img.png", "plain");
}

typedef struct fault {
    size_t at, steps;
} fault;

static int fail_at(void *arg, const char *step)
{
    fault *f = arg;
    (void)step;
    return ++f->steps == f->at ? EIO : 0;
}

//  Whatever step fails, the next attempt leaves one picture and one sidecar.
static void test_every_step_may_fail(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t at = 1; at < 60; at++) {
        const luna_name name = make_name("f", "img");
        const luna_image image = with_sidecar(&name);
        fault f = {.at = at};
        luna_image_record record;
        luna_sink *sink = open_sink(fail_at, &f);
        failed += luna_sink_put(sink, &image, &record) != LUNA_OK;
        luna_sink_close(&sink);
        sink = open_sink(NULL, NULL);
        put_ok(sink, &image, &record);
        luna_sink_close(&sink);
        check_content(ROOT "/f/img.png", "pixels");
        check_content(ROOT "/f/img.png.json", TEXT);
        assert_int_equal(count_names(ROOT "/f", false), 2);
        assert_int_equal(count_names(ROOT "/f", true), 0);
        remove_tree(ROOT "/f");
        remove_tree(ROOT "/.luna");
    }
    assert_true(failed > 12);
}

static void test_note_is_remembered(void **state)
{
    const luna_name name = make_name("", "img");
    luna_image image = make_image(luna_id_new(), &name, "pixels");
    luna_image_record record, found;
    bool there;
    image.note = "discarded:\nline";
    put_ok(*state, &image, &record);
    assert_string_equal(record.note, "discarded: line");
    assert_int_equal(luna_sink_find(*state, &image.key, &found, &there), LUNA_OK);
    assert_true(there);
    assert_string_equal(found.note, "discarded: line");
}

static mode_t mode_of(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return info.st_mode & 07777;
}

static void test_modes_and_group(void **state)
{
    (void)state;
    static const char *const roots[] = {ROOT};
    const luna_files_options options = {.roots = roots,
                                        .count = 1,
                                        .access = {.file_mode = 0604,
                                                   .folder_mode = 0705,
                                                   .has_group = true,
                                                   .group = getegid()}};
    const luna_name name = make_name("deep/er", "img");
    const luna_image image = with_sidecar(&name);
    luna_image_record record;
    luna_sink *sink;
    assert_int_equal(luna_files_open(&options, &sink), LUNA_OK);
    put_ok(sink, &image, &record);
    luna_sink_close(&sink);
    assert_int_equal(mode_of(ROOT "/deep"), 0705);
    assert_int_equal(mode_of(ROOT "/deep/er"), 0705);
    assert_int_equal(mode_of(ROOT "/deep/er/img.png"), 0604);
    assert_int_equal(mode_of(ROOT "/deep/er/img.png.json"), 0604);
}

//  Root may give pictures to anybody.
static void test_owner(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    static const char *const roots[] = {ROOT}, *const made[] = {
                                                   ROOT "/deep", ROOT "/deep/img.png",
                                                   ROOT "/deep/img.png.json"};
    const luna_files_options options = {
        .roots = roots,
        .count = 1,
        .access = {.has_owner = true, .owner = 12345, .has_group = true, .group = 54321}};
    const luna_name name = make_name("deep", "img");
    const luna_image image = with_sidecar(&name);
    luna_image_record record;
    luna_sink *sink;
    assert_int_equal(luna_files_open(&options, &sink), LUNA_OK);
    put_ok(sink, &image, &record);
    luna_sink_close(&sink);
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        struct stat info;
        assert_int_equal(stat(made[i], &info), 0);
        assert_int_equal(info.st_uid, 12345);
        assert_int_equal(info.st_gid, 54321);
    }
}

//  An owner that cannot be given is told; nothing is left.
static void test_an_owner_that_cannot_be(void **state)
{
    (void)state;
    if (geteuid() == 0) skip();
    static const char *const roots[] = {ROOT};
    const luna_files_options options = {
        .roots = roots, .count = 1, .access = {.has_owner = true, .owner = 0}};
    const luna_name name = make_name("x", "img");
    const luna_image image = with_sidecar(&name);
    luna_image_record record;
    luna_sink *sink;
    assert_int_equal(luna_files_open(&options, &sink), LUNA_OK);
    assert_int_equal(luna_sink_put(sink, &image, &record), LUNA_CANT_CREATE);
    luna_sink_close(&sink);
    assert_int_equal(count_names(ROOT, false), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_beside_the_picture),      T(test_a_name_with_a_stranger_beside),
        T(test_every_step_may_fail),     T(test_note_is_remembered),
        T(test_modes_and_group),         T(test_owner),
        T(test_an_owner_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
