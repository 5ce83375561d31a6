//  The file sink, one attempt at a time: what is written, what is refused, what a
//  failure leaves.

#include "sink_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>

static int setup(void **state)
{
    *state = open_sink(NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    luna_sink *sink = *state;
    luna_sink_close(&sink);
    assert_null(sink);
    remove_tree(ROOT);
    remove_tree("outside");
    return 0;
}

static void test_put_and_find(void **state)
{
    const luna_name name = make_name("a/b", "img");
    const luna_image image = make_image(luna_id_new(), &name, "abc");
    luna_image_record put, found;
    bool there;
    assert_int_equal(luna_sink_find(*state, &image.key, &found, &there), LUNA_OK);
    assert_false(there);
    put_ok(*state, &image, &put);
    char want[4096], here[2048];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(want, sizeof want, "%s/root/a/b/img.png", here);
    assert_string_equal(put.path, want);
    check_content(put.path, "abc");
    assert_int_equal(put.bytes, 3);
    assert_string_equal(
        put.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(put.width, 640);
    assert_int_equal(put.height, 480);
    assert_int_equal(luna_sink_find(*state, &image.key, &found, &there), LUNA_OK);
    assert_true(there);
    assert_string_equal(found.path, put.path);
    assert_string_equal(found.sha256, put.sha256);
    assert_int_equal(found.bytes, 3);
    assert_int_equal(found.width, 640);
    assert_int_equal(found.height, 480);
    assert_int_equal(found.key.input, 1);
    assert_int_equal(found.key.index, 3);
    assert_int_equal(count_names(ROOT "/a/b", true), 0);
    assert_int_equal(count_records(&image.key.job), 1);
}

static void test_second_put_gives_the_first_record(void **state)
{
    const luna_name name = make_name("", "img"), other = make_name("x", "other");
    luna_image image = make_image(luna_id_new(), &name, "first");
    luna_image_record first, second;
    put_ok(*state, &image, &first);
    image.name = &other;
    image.data = "other bytes";
    image.len = 11;
    put_ok(*state, &image, &second);
    assert_string_equal(second.path, first.path);
    assert_string_equal(second.sha256, first.sha256);
    check_content(first.path, "first");
    assert_int_equal(count_names(ROOT, false), 1);
}

static void test_never_overwrites(void **state)
{
    const luna_name name = make_name("", "img");
    luna_image_record record;
    FILE *mine = fopen(ROOT "/img.png", "w");
    assert_true(fputs("mine", mine) >= 0 && fclose(mine) == 0);
    for (int i = 1; i < 4; i++) {
        char want[64];
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        put_ok(*state, &image, &record);
        snprintf(want, sizeof want, "/img_%05d.png", i);
        assert_string_equal(strrchr(record.path, '/'), want);
    }
    check_content(ROOT "/img.png", "mine");
}

//  Every one of the three values makes an image: none is another's.
static void test_key_is_job_input_index(void **state)
{
    const luna_name name = make_name("", "img");
    luna_image image = make_image(luna_id_new(), &name, "abc");
    luna_image_record record;
    put_ok(*state, &image, &record);
    image.key.input = 2;
    put_ok(*state, &image, &record);
    image.key.index = 11;
    put_ok(*state, &image, &record);
    image.key.job = luna_id_new();
    put_ok(*state, &image, &record);
    assert_int_equal(count_names(ROOT, false), 4);
}

static void check_again(luna_sink *sink, const luna_image *image)
{
    luna_image_record record;
    bool found;
    assert_int_equal(luna_sink_find(sink, &image->key, &record, &found), LUNA_OK);
    assert_false(found);
    put_ok(sink, image, &record);
    check_content(record.path, "abc");
    assert_int_equal(luna_sink_find(sink, &image->key, &record, &found), LUNA_OK);
    assert_true(found);
}

static void test_deleted_or_changed_file_is_written_again(void **state)
{
    const luna_name name = make_name("", "img");
    const luna_image image = make_image(luna_id_new(), &name, "abc");
    luna_image_record record;
    put_ok(*state, &image, &record);
    unlink(record.path);
    check_again(*state, &image);
    const int fd = open(record.path, O_WRONLY);
    assert_int_equal(write(fd, "X", 1), 1);
    close(fd);
    check_again(*state, &image);
    assert_int_equal(count_names(ROOT, false), 2);
}

static void test_damaged_records_count_as_none(void **state)
{
    static const char *const bad[] = {
        "",
        "luna-image 1\n",
        "luna-image 2\npath img.png\n",
        "luna-image 1\npath ../img.png\nbytes 3\n",
        "luna-image 1\npath /etc/passwd\nbytes 3\nsha256 00\nwidth 1\nheight 1\n",
        "luna-image 1\npath img.png\nbytes 99999999999999999999\nsha256 0\n",
        "luna-image 1\npath img.png\nbytes 3\nsha256 "
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\nwidth 1\n",
    };
    const luna_name name = make_name("", "img");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        luna_image_record record;
        char id[LUNA_ID_TEXT_BYTES], path[256];
        put_ok(*state, &image, &record);
        luna_id_text(&image.key.job, id);
        snprintf(path, sizeof path, ROOT "/.luna/%s/1-3", id);
        FILE *file = fopen(path, "w");
        assert_true(fputs(bad[i], file) >= 0 && fclose(file) == 0);
        check_again(*state, &image);
    }
}

//  ---- folders ------------------------------------------------------------------------

static void check_dir(luna_sink *sink, const char *dir, const char *folder, luna_err want)
{
    const luna_name name = make_name(folder, "img");
    luna_image image = make_image(luna_id_new(), &name, "abc");
    luna_image_record record;
    image.output_dir = text(dir);
    //  Asking beforehand never refuses what a put takes, nor for another reason.
    const luna_err before = luna_sink_check(sink, image.output_dir, &name);
    if (before != LUNA_OK) assert_int_equal(before, want);
    const luna_err got = luna_sink_put(sink, &image, &record);
    if (got != want) fail_msg("%s: %s", dir, got ? luna_error_text() : "taken");
}

static void test_only_inside_the_roots(void **state)
{
    char here[2048], dir[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(mkdir("outside", 0777), 0);
    assert_int_equal(symlink("../outside", ROOT "/leak"), 0);
    assert_int_equal(symlink("nowhere", ROOT "/dangling"), 0);
    assert_int_equal(symlink("loop", ROOT "/loop"), 0);
    assert_int_equal(mkdir(ROOT "/real", 0777), 0);
    assert_int_equal(symlink("real", ROOT "/inner"), 0);
    static const struct {
        const char *below, *folder;
        luna_err want;
    } rows[] = {
        {"/root", "", LUNA_OK},
        {"/root/", "new/deep/er", LUNA_OK},
        {"/root/./new//x", "", LUNA_OK},
        {"/root/inner", "y", LUNA_OK},
        {"/root", "leak", LUNA_FORBIDDEN},
        {"/root/leak/new", "", LUNA_FORBIDDEN},
        {"/root/dangling", "", LUNA_FORBIDDEN},
        {"/root/dangling/x", "", LUNA_FORBIDDEN},
        {"/root/loop", "", LUNA_FORBIDDEN},
        {"/root/../outside", "", LUNA_FORBIDDEN},
        {"/root/new/..", "", LUNA_FORBIDDEN},
        {"/outside", "", LUNA_FORBIDDEN},
        {"", "", LUNA_FORBIDDEN},
        {"/rooted", "", LUNA_FORBIDDEN},
        {"/root/.luna", "", LUNA_FORBIDDEN},
        {"/root/x/.luna-y", "", LUNA_FORBIDDEN},
        {"/root/a\nb", "", LUNA_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(dir, sizeof dir, "%s%s", here, rows[i].below);
        check_dir(*state, dir, rows[i].folder, rows[i].want);
    }
    check_dir(*state, "", "", LUNA_OK);
    check_dir(*state, "root", "", LUNA_BAD_REQUEST);
    check_dir(*state, "/", "", LUNA_FORBIDDEN);
    assert_int_equal(count_names("outside", false) + count_names("outside", true), 0);
    assert_int_equal(count_names(ROOT "/real/y", false), 1);
}

static void test_error_names_the_roots(void **state)
{
    const luna_name name = make_name("", "img");
    assert_int_equal(luna_sink_check(*state, text("/tmp"), &name), LUNA_FORBIDDEN);
    check_dir(*state, "/tmp", "", LUNA_FORBIDDEN);
    assert_non_null(strstr(luna_error_text(), "/root)"));
}

//  Tests may run as root, for whom no folder is unwritable: a file in its place is.
static void test_file_in_place_of_a_folder(void **state)
{
    FILE *file = fopen(ROOT "/taken", "w");
    assert_int_equal(fclose(file), 0);
    check_dir(*state, "", "taken", LUNA_CANT_CREATE);
    check_dir(*state, "", "taken/deeper", LUNA_CANT_CREATE);
}

static void test_root_that_is_gone(void **state)
{
    assert_int_equal(rename(ROOT, "outside"), 0);
    check_dir(*state, "", "", LUNA_IO);
    assert_int_equal(access(ROOT, F_OK), -1);
}

static void test_inner_root_counts(void **state)
{
    char here[2048], dir[4096];
    static const char *const roots[] = {ROOT, ROOT "/inner"};
    luna_sink *sink;
    luna_image_record record;
    bool found;
    const luna_name name = make_name("", "img");
    luna_image image = make_image(luna_id_new(), &name, "abc");
    assert_int_equal(
        luna_files_open(&(luna_files_options){.roots = roots, .count = 2}, &sink),
        LUNA_OK);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(dir, sizeof dir, "%s/root/inner/x", here);
    image.output_dir = text(dir);
    put_ok(sink, &image, &record);
    assert_int_equal(access(ROOT "/inner/.luna", F_OK), 0);
    assert_int_equal(access(ROOT "/.luna", F_OK), -1);
    assert_int_equal(luna_sink_find(sink, &image.key, &record, &found), LUNA_OK);
    assert_true(found);
    luna_sink_close(&sink);
    (void)state;
}

static void test_roots_that_do_not_open(void **state)
{
    (void)state;
    luna_sink *sink = NULL;
    static const char *const file[] = {ROOT "/file"};
    FILE *made = fopen(file[0], "w");
    assert_int_equal(fclose(made), 0);
    assert_int_equal(
        luna_files_open(&(luna_files_options){.roots = file, .count = 1}, &sink),
        LUNA_CANT_CREATE);
    assert_int_equal(luna_files_open(&(luna_files_options){0}, &sink), LUNA_CONFIG);
    assert_null(sink);
}

static void test_refused_images(void **state)
{
    const luna_name name = make_name("", "img");
    luna_image image = make_image(luna_id_new(), &name, "");
    luna_image_record record;
    assert_int_equal(luna_sink_put(*state, &image, &record), LUNA_BAD_REQUEST);
    assert_int_equal(count_names(ROOT, false) + count_names(ROOT, true), 0);
}

//  ---- failures --------------------------------------------------------------------

typedef struct failing {
    int at, seen, code;
} failing;

static int fail_at(void *arg, const char *step)
{
    failing *f = arg;
    (void)step;
    return ++f->seen == f->at ? f->code : 0;
}

//  Every step fails in turn: what is left must be one whole image or none, never a part,
//  and the same put again must succeed.
static void test_every_step_may_fail(void **state)
{
    (void)state;
    size_t refused = 0;
    const luna_name name = make_name("f", "img");
    for (int at = 1;; at++) {
        remove_tree(ROOT);
        failing f = {.at = at, .code = ENOSPC};
        luna_sink *sink = open_sink(fail_at, &f);
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        luna_image_record record;
        const luna_err err = luna_sink_put(sink, &image, &record);
        const bool reached = f.seen >= at;
        const size_t finals = count_names(ROOT "/f", false);
        assert_true(finals <= 1);
        if (finals == 1) check_content(ROOT "/f/img.png", "abc");
        if (err == LUNA_OK) assert_int_equal(finals, 1);
        refused += err != LUNA_OK;
        if (finals == 0 && err != LUNA_OK) assert_true(count_names(ROOT "/f", true) <= 2);
        f.at = 0;
        put_ok(sink, &image, &record);
        put_ok(sink, &image, &record);
        check_content(record.path, "abc");
        assert_int_equal(count_names(ROOT "/f", false), 1);
        assert_int_equal(count_names(ROOT "/f", true), 0);
        assert_int_equal(count_records(&image.key.job), 1);
        luna_sink_close(&sink);
        if (!reached) break;
    }
    assert_true(refused >= 10);
}

static void test_no_space_says_so_and_leaves_nothing(void **state)
{
    (void)state;
    static const char *const steps[] = {"create mark", "create part", "reserve",
                                        "write",       "sync part",   "link anchor"};
    const luna_name name = make_name("", "img");
    for (int i = 0; i < (int)(sizeof steps / sizeof *steps); i++) {
        failing f = {.at = i + 2, .code = ENOSPC};
        luna_sink *sink = open_sink(fail_at, &f);
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        luna_image_record record;
        assert_int_equal(luna_sink_put(sink, &image, &record), LUNA_NO_SPACE);
        assert_non_null(strstr(luna_error_text(), "root"));
        assert_non_null(strstr(luna_error_text(), "free space"));
        assert_int_equal(count_names(ROOT, false) + count_names(ROOT, true), 0);
        assert_int_equal(count_records(&image.key.job), 0);
        luna_sink_close(&sink);
    }
}

static void test_file_size_limit(void **state)
{
    const luna_name name = make_name("", "img");
    static char big[100001];
    memset(big, 'x', sizeof big - 1);
    const luna_image image = make_image(luna_id_new(), &name, big);
    luna_image_record record;
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){.rlim_cur = 50000, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const luna_err err = luna_sink_put(*state, &image, &record);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(err, LUNA_NO_SPACE);
    assert_int_equal(count_names(ROOT, false) + count_names(ROOT, true), 0);
    put_ok(*state, &image, &record);
    assert_int_equal(record.bytes, 100000);
}

static void test_every_name_taken_moves_on(void **state)
{
    const luna_name name = make_name("", "img");
    char path[64];
    for (unsigned k = 0; k < 3000; k++) {
        snprintf(path, sizeof path, k ? ROOT "/img_%05u.png" : ROOT "/img.png", k);
        const int fd = open(path, O_CREAT | O_WRONLY, 0666);
        assert_true(fd >= 0);
        close(fd);
    }
    const luna_image image = make_image(luna_id_new(), &name, "abc");
    luna_image_record record;
    put_ok(*state, &image, &record);
    assert_string_equal(strrchr(record.path, '/'), "/img_03000.png");
}

//  ---- sweep -----------------------------------------------------------------------

static void make_old(const char *path)
{
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void age_folder(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        char child[4096];
        if (entry->d_name[0] == '.' && strncmp(entry->d_name, ".luna-", 6) != 0) continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        make_old(child);
    }
    closedir(dir);
    make_old(path);
}

//  As if there were no locks: the marks say nothing of a host.
static void forget_hosts(const char *side)
{
    DIR *dir = opendir(side);
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", side, entry->d_name);
        if (strstr(entry->d_name, ".try")) assert_int_equal(truncate(path, 2), 0);
    }
    closedir(dir);
}

//  An attempt that failed behind its anchor leaves temporaries, here one that held
//  nothing: the sweep takes them when they are old, not before, and never a picture.
static void test_sweep(void **state)
{
    const luna_name name = make_name("f", "img");
    char id[LUNA_ID_TEXT_BYTES], side[256];
    failing f = {.at = 9, .code = EIO};
    luna_sink *broken = open_sink(fail_at, &f);
    luna_image_record record;
    const luna_image lost = make_image(luna_id_new(), &name, "lost");
    const luna_image kept = make_image(luna_id_new(), &name, "kept");
    assert_int_not_equal(luna_sink_put(broken, &lost, &record), LUNA_OK);
    luna_sink_close(&broken);
    assert_true(count_names(ROOT "/f", true) > 0);
    put_ok(*state, &kept, &record);
    luna_id_text(&lost.key.job, id);
    snprintf(side, sizeof side, ROOT "/.luna/%s", id);
    forget_hosts(side);
    sweep(*state);
    assert_true(count_names(ROOT "/f", true) > 0);
    assert_int_equal(count_names(side, false), 1);
    age_folder(side);
    age_folder(ROOT "/f");
    sweep(*state);
    assert_int_equal(count_names(ROOT "/f", true), 0);
    assert_int_equal(access(side, F_OK), -1);
    check_content(record.path, "kept");
    assert_int_equal(count_records(&kept.key.job), 1);
    luna_id_text(&kept.key.job, id);
    snprintf(side, sizeof side, ROOT "/.luna/%s", id);
    age_folder(side);
    sweep(*state);
    assert_int_equal(access(side, F_OK), -1);
    check_content(record.path, "kept");
}

static void write_file(const char *path, const char *bytes)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
    close(fd);
}

//  Whoever saved the image died before it had cleaned up, or a power cut brought its
//  temporaries back: nobody will ask for this image again.
static void test_sweep_takes_temporaries_of_a_kept_image(void **state)
{
    const luna_name name = make_name("f", "img");
    char id[LUNA_ID_TEXT_BYTES], side[128], mark[256], anchor[256], part[256];
    luna_image_record record;
    const luna_image image = make_image(luna_id_new(), &name, "kept");
    put_ok(*state, &image, &record);
    luna_id_text(&image.key.job, id);
    snprintf(side, sizeof side, ROOT "/.luna/%s", id);
    snprintf(mark, sizeof mark, "%s/1-3.0123456789abcdef.try", side);
    snprintf(anchor, sizeof anchor, ROOT "/f/.luna-%s-1-3.tmp", id);
    snprintf(part, sizeof part, ROOT "/f/.luna-%s-1-3.0123456789abcdef.part", id);
    write_file(mark, "f");
    write_file(part, "half");
    assert_int_equal(link(record.path, anchor), 0);
    sweep(*state);
    assert_int_equal(count_names(ROOT "/f", true), 0);
    assert_int_equal(count_names(side, false), 1);
    check_content(record.path, "kept");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        T(test_put_and_find),
        T(test_second_put_gives_the_first_record),
        T(test_never_overwrites),
        T(test_key_is_job_input_index),
        T(test_deleted_or_changed_file_is_written_again),
        T(test_damaged_records_count_as_none),
        T(test_only_inside_the_roots),
        T(test_error_names_the_roots),
        T(test_file_in_place_of_a_folder),
        T(test_root_that_is_gone),
        T(test_inner_root_counts),
        T(test_roots_that_do_not_open),
        T(test_refused_images),
        T(test_every_step_may_fail),
        T(test_no_space_says_so_and_leaves_nothing),
        T(test_file_size_limit),
        T(test_every_name_taken_moves_on),
        T(test_sweep),
        T(test_sweep_takes_temporaries_of_a_kept_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
