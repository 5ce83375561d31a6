//  Errors, ids, files, clocks and the log.

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/id.h"
#include "common/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_error_table(void **state)
{
    (void)state;
    for (int i = 0; i < LUNA_ERR_COUNT; i++)
        assert_int_equal(luna_err_from_name(luna_err_name((luna_err)i)), i);
    assert_int_equal(luna_err_from_name("no such word"), LUNA_INTERNAL);
    assert_string_equal(luna_err_name((luna_err)999), "internal");
    assert_int_equal(luna_err_exit(LUNA_USAGE), 64);
    assert_int_equal(luna_err_http(LUNA_TOO_LARGE), 413);
    assert_true(luna_err_retry(LUNA_NO_SPACE) && !luna_err_retry(LUNA_BAD_LATENT));
}

static void test_error_text(void **state)
{
    (void)state;
    assert_int_equal(luna_error(LUNA_IO, "one %d", 1), LUNA_IO);
    luna_error(LUNA_IO, "two, after %s", luna_error_text());
    assert_string_equal(luna_error_text(), "two, after one 1");
    errno = ENOSPC;
    assert_int_equal(luna_error_errno(LUNA_IO, "cannot write %s", "/x"), LUNA_NO_SPACE);
    assert_string_equal(luna_error_text(), "cannot write /x: No space left on device");
    char longer[3000];
    memset(longer, 'a', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    luna_error(LUNA_IO, "%s", longer);
    assert_int_equal(strlen(luna_error_text()), 1023);
}

static void test_ids(void **state)
{
    (void)state;
    luna_id a = luna_id_new(), b = luna_id_new(), parsed;
    char text[LUNA_ID_TEXT_BYTES];
    assert_int_not_equal(luna_id_compare(&a, &b), 0);
    luna_id_text(&a, text);
    assert_int_equal(text[14], '7');  //  the version
    assert_non_null(strchr("89ab", text[19]));
    assert_int_equal(luna_id_parse(text, &parsed), LUNA_OK);
    assert_int_equal(luna_id_compare(&a, &parsed), 0);
    static const char *const wrong[] = {"", "x", "0192f1c2-a5b0-7c3d-8e4f-5061728394a",
                                        "0192f1c2-a5b0-7c3d-8e4f-5061728394a5x",
                                        "0192f1c2a5b0-7c3d-8e4f-5061728394a5--"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(luna_id_parse(wrong[i], &parsed), LUNA_BAD_REQUEST);
    assert_int_equal(luna_id_parse("0192F1C2-A5B0-7C3D-8E4F-5061728394A5", &parsed),
                     LUNA_OK);
    assert_int_equal(parsed.byte[1], 0x92);
}

static void test_files(void **state)
{
    (void)state;
    luna_map map;
    char *data;
    size_t len;
    assert_int_equal(luna_make_dirs("a/b/c", 0700), LUNA_OK);
    assert_int_equal(luna_make_dirs("a/b/c", 0700), LUNA_OK);
    const int fd = open("a/b/c/f", O_CREAT | O_WRONLY, 0600);
    assert_int_equal(luna_write_all(fd, "hello", 5, "a/b/c/f"), LUNA_OK);
    close(fd);
    assert_int_equal(luna_sync_dir("a/b/c"), LUNA_OK);
    assert_int_equal(luna_map_open("a/b/c/f", &map), LUNA_OK);
    assert_memory_equal(map.data, "hello", 5);
    luna_map_close(&map);
    assert_int_equal(luna_file_read("a/b/c/f", 5, &data, &len), LUNA_OK);
    assert_string_equal(data, "hello");
    free(data);
    assert_int_equal(luna_file_read("a/b/c/f", 4, &data, &len), LUNA_TOO_LARGE);
    assert_int_equal(luna_file_read("a/none", 4, &data, &len), LUNA_NOT_FOUND);
    assert_int_equal(luna_map_open("a/b", &map), LUNA_IO);
    //  A pipe nobody writes to is no file, and nothing to wait for.
    assert_int_equal(mkfifo("a/pipe", 0600), 0);
    assert_int_equal(luna_map_open("a/pipe", &map), LUNA_IO);
    assert_int_equal(luna_file_read("a/pipe", 4, &data, &len), LUNA_IO);
    unlink("a/pipe");
    assert_int_equal(luna_make_dirs("a/b/c/f/d", 0700), LUNA_CANT_CREATE);
    unlink("a/b/c/f");
    rmdir("a/b/c");
    rmdir("a/b");
    rmdir("a");
}

static void test_paths(void **state)
{
    (void)state;
    char path[8];
    assert_int_equal(luna_path_join(path, sizeof path, "/", "x"), LUNA_OK);
    assert_string_equal(path, "/x");
    assert_int_equal(luna_path_join(path, sizeof path, "/ab", "cde"), LUNA_OK);
    assert_string_equal(path, "/ab/cde");
    assert_int_equal(luna_path_join(path, sizeof path, "/ab", "cdef"), LUNA_TOO_LARGE);
}

static void test_clocks(void **state)
{
    (void)state;
    const int64_t start = luna_now_ns();
    assert_true(luna_now_ns() >= start);
    assert_true(luna_wall_ms() > 1700000000000);
    setenv("TZ", "UTC-5:30", 1);  //  POSIX: minus is east
    assert_int_equal(luna_utc_offset_min(luna_wall_ms()), 330);
}

static void test_error_text_is_utf8(void **state)
{
    (void)state;
    (void)luna_error(LUNA_IO, "'%s' and %.3s", "a\xe9\xc3\xa9z", "ab\xc3\xa9");
    assert_string_equal(luna_error_text(), "'a?\xc3\xa9z' and ab?");
    char long_text[2000];
    memset(long_text, 'x', 1022);
    strcpy(long_text + 1022, "\xc3\xa9");
    (void)luna_error(LUNA_IO, "%s", long_text);
    assert_string_equal(luna_error_text() + 1021, "x?");
}

static void test_log_is_one_clean_line(void **state)
{
    (void)state;
    int ends[2];
    char line[4096];
    assert_int_equal(pipe(ends), 0);
    const int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    setenv("JOURNAL_STREAM", "1:2", 1);
    luna_log_start("luna-test", LUNA_LOG_INFO);
    luna_log(LUNA_LOG_DEBUG, "unseen", "%s", "");
    luna_log(LUNA_LOG_WARNING, "job failed", "path=%s", "a\nb");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    const ssize_t n = read(ends[0], line, sizeof line - 1);
    close(ends[0]);
    assert_true(n > 0);
    line[n] = '\0';
    assert_string_equal(line, "<4>job failed path=a?b\n");
    luna_log_level level;
    assert_int_equal(luna_log_level_parse("debug", &level), LUNA_OK);
    assert_int_equal(luna_log_level_parse("loud", &level), LUNA_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_table),
        cmocka_unit_test(test_error_text),
        cmocka_unit_test(test_error_text_is_utf8),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_log_is_one_clean_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
