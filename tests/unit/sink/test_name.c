//  File name templates: a table of what they give, what is refused, and a million bytes
//  of noise that must never leave the folder or make a name somebody refuses.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "decoder/sink/name.h"

static luna_text text(const char *s)
{
    return (luna_text){s, s ? strlen(s) : 0};
}

//  2025-12-02 23:36:42 UTC.
#define WHEN_MS 1764718602123

static luna_name_request plain(void)
{
    return (luna_name_request){.save_path = text("out"),
                               .filename = text("img"),
                               .affix = text("ORIG"),
                               .model_name = text("SDXL/3D\\best.safetensors"),
                               .ext = "png",
                               .filename_index = 7,
                               .count = 1,
                               .created_ms = WHEN_MS};
}

static void check_full(const luna_name_request *r, const char *want)
{
    luna_name name;
    char file[LUNA_NAME_PART_BYTES], got[LUNA_NAME_FOLDER_BYTES + LUNA_NAME_PART_BYTES];
    if (luna_name_make(r, &name) != LUNA_OK) fail_msg("%s", luna_error_text());
    luna_name_candidate(&name, 0, file);
    snprintf(got, sizeof got, "%s|%s", name.folder, file);
    assert_string_equal(got, want);
}

static void check_refused(const luna_name_request *r, luna_err want)
{
    luna_name name;
    memset(&name, 0x5A, sizeof name);
    const luna_name before = name;
    assert_int_equal(luna_name_make(r, &name), want);
    assert_memory_equal(&name, &before, sizeof name);
    assert_true(strlen(luna_error_text()) > 10);
}

static void test_templates(void **state)
{
    (void)state;
    static const struct {
        const char *save_path, *filename, *affix;
        bool subdir;
        const char *want;
    } rows[] = {
        {"", "img", "", false, "|img.png"},
        {"", "img", "", true, "|img.png"},
        {"", "img", "ORIG", true, "ORIG|img_ORIG.png"},
        {"a/b", "img", "ORIG", false, "a/b|img_ORIG.png"},
        {"a//./b/", "img", "ORIG", true, "a/b/ORIG|img_ORIG.png"},
        {"a\\b", "img", "X", true, "a/b/X|img_X.png"},
        {"%model_path%", "%model_name%", "", false, "SDXL/3D/best|best.png"},
        {"%model_dir%", "%index%", "", false, "SDXL/3D|7.png"},
        {"", "", "A", false, "|luna_2025-12-02_233642_A.png"},
        {"%time:YYYY/mm/dd%", "%time:HH.MM.SS%", "", false, "2025/12/02|23.36.42.png"},
        {"", "%time:YYYYmmddHHMMSS%", "", false, "|20251202233642.png"},
        {"", "%time:ymdYYY%", "", false, "|ymdYYY.png"},
        {"", "100%", "", false, "|100%.png"},
        {"", "%unknown% %%", "", false, "|%unknown% %%.png"},
        {"", "%s%n%d%x", "", false, "|%s%n%d%x.png"},
        {"", "%time:%", "", false, "|%time_%.png"},
        {"", "sub/img", "A", true, "A/sub|img_A.png"},
        {"", "a<b>c:\"d|e?f*g", "", false, "|a_b_c__d_e_f_g.png"},
        {"", "a\nb\tc\x7f", "", false, "|a_b_c_.png"},
        {"", "caf\xC3\xA9 \xE6\xBC\xA2 \xF0\x9F\x98\x80", "", false,
         "|caf\xC3\xA9 \xE6\xBC\xA2 \xF0\x9F\x98\x80.png"},
        {"", "bad\xC3\x28\xFFutf", "", false, "|bad_(_utf.png"},
        {"", "c1\xC2\x85x", "", false, "|c1_x.png"},
        {".hidden/.luna", ".luna-x", "", false, "_hidden/_luna|_luna-x.png"},
        {"dots./space ", "end.", "", false, "dots_/space_|end_.png"},
        {"CON/aux.x", "nul", "", false, "_CON/_aux.x|_nul.png"},
        {"", "COM1", "", false, "|_COM1.png"},
        {"", "lpt\xC2\xB9", "", false, "|_lpt\xC2\xB9.png"},
        {"", "CONSOLE", "", false, "|CONSOLE.png"},
        {"", "img", "a/b\\c", true, "a_b_c|img_a_b_c.png"},
        {"", "img", "..", true, "__|img___.png"},
        {"", "%", "", false, "|%.png"},
        {"/", "img/", "", false, "|img.png"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        luna_name_request r = plain();
        r.save_path = text(rows[i].save_path);
        r.filename = text(rows[i].filename);
        r.affix = text(rows[i].affix);
        r.subdir = rows[i].subdir;
        check_full(&r, rows[i].want);
    }
}

static void test_values(void **state)
{
    (void)state;
    luna_name_request r = plain();
    r.count = 3;
    r.index = 2;
    r.ext = "jpg";
    check_full(&r, "out|img_ORIG_2.jpg");
    r = plain();
    r.filename = text("%model_path%");
    check_full(&r, "out/SDXL/3D|best_ORIG.png");
    r.model_name = text("");
    r.filename = text("%model_name%-%model_dir%");
    check_full(&r, "out|UnknownModel-_ORIG.png");
    r.model_name = text("a.PT");
    check_full(&r, "out|a-_ORIG.png");
    r.model_name = text("v1.5.ckpt.gguf/");
    check_full(&r, "out|v1.5.ckpt-_ORIG.png");
    //  What a word brings in is not a template again.
    r.model_name = text("%index%.bin");
    check_full(&r, "out|%index%-_ORIG.png");
    r = (luna_name_request){.ext = "png"};
    check_full(&r, "|luna_1970-01-01_000000.png");
}

//  The words beyond the original's.
static void test_further_words(void **state)
{
    (void)state;
    static const struct {
        const char *save_path, *filename, *want;
    } rows[] = {
        {"", "%seed%", "18446744073709551615_2.png"},
        {"", "%width%x%height%", "1024x768_2.png"},
        {"", "%batch%_%seed%", "2_18446744073709551615.png"},
        {"", "x", "x_2.png"},
        {"%date:yyyy-MM-dd%", "%date:hh.mm.ss%", "2025-12-02/23.36.42_2.png"},
        {"", "%date:d.M.yy h m s yyy%", "2.12.25 23 36 42 yyy_2.png"},
        {"", "%date:ddd yyyyyMM%", "022 2025y12_2.png"},
        {"", "%date:%", "%date_%_2.png"},
        {"", "%date:../x%", NULL},
        {"%width%", "%batch%", "1024/2.png"},
        {"", "n%counter%n", "n00001n_2.png"},
        {"", "a/%counter%", "a/00001_2.png"},
        {"", "\x01%counter%\x01", "_00001__2.png"},
        {"%counter%", "x", NULL},
        {"", "%counter%/x", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        luna_name name;
        char file[LUNA_NAME_PART_BYTES], got[4096];
        const luna_name_request r = {.save_path = text(rows[i].save_path),
                                     .filename = text(rows[i].filename),
                                     .seed = text("18446744073709551615"),
                                     .ext = "png",
                                     .index = 2,
                                     .count = 3,
                                     .width = 1024,
                                     .height = 768,
                                     .created_ms = WHEN_MS};
        const luna_err err = luna_name_make(&r, &name);
        assert_int_equal(err == LUNA_OK, rows[i].want != NULL);
        if (err != LUNA_OK) continue;
        luna_name_candidate(&name, 0, file);
        snprintf(got, sizeof got, "%s%s%s", name.folder, name.folder[0] ? "/" : "", file);
        assert_string_equal(got, rows[i].want);
    }
}

static void test_seed_may_be_unknown_or_odd(void **state)
{
    (void)state;
    luna_name_request r = plain();
    r.filename = text("%seed%");
    check_full(&r, "out|UnknownSeed_ORIG.png");
    r.seed = text("../../x\x01");
    check_refused(&r, LUNA_FORBIDDEN);
    r.seed = text("ab:c\x01");
    check_full(&r, "out|ab_c__ORIG.png");
}

static void test_counter(void **state)
{
    (void)state;
    char file[LUNA_NAME_PART_BYTES], stem[256];
    luna_name name;
    luna_name_request r = {.filename = text("%counter%-%counter%"), .ext = "jpg"};
    assert_int_equal(luna_name_make(&r, &name), LUNA_OK);
    luna_name_candidate(&name, 41, file);
    assert_string_equal(file, "00042-00042.jpg");
    luna_name_candidate(&name, LUNA_NAME_TRIES - 1, file);
    assert_string_equal(file, "99999-99999.jpg");
    memset(stem, 's', sizeof stem);
    memcpy(stem + 200, "%counter%", 9);
    r.filename = (luna_text){stem, 255};
    assert_int_equal(luna_name_make(&r, &name), LUNA_OK);
    luna_name_candidate(&name, 0, file);
    assert_int_equal(strlen(file), 255);
    r.filename.len = 256;
    assert_int_equal(luna_name_make(&r, &name), LUNA_TOO_LARGE);
}

static void test_discarded_and_sidecar(void **state)
{
    (void)state;
    char stem[256];
    luna_name name;
    luna_name_request r = plain();
    r.discarded = true;
    check_full(&r, "out/_discarded|img_ORIG.png");
    r.subdir = true;
    r.save_path = text("");
    check_full(&r, "_discarded/ORIG|img_ORIG.png");
    memset(stem, 's', sizeof stem);
    r = (luna_name_request){.filename = {stem, 240}, .ext = "png", .sidecar = true};
    assert_int_equal(luna_name_make(&r, &name), LUNA_OK);
    r.filename.len = 241;
    assert_int_equal(luna_name_make(&r, &name), LUNA_TOO_LARGE);
}

static void test_model(void **state)
{
    (void)state;
    static const struct {
        const char *model, *path, *name;
    } rows[] = {{"a\\b/c.safetensors", "a/b/c", "c"},
                {"c.ckpt/", "c", "c"},
                {"/c", "c", "c"},
                {"", "", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char room[LUNA_NAME_MODEL_BYTES];
        luna_text path, name;
        luna_name_model(text(rows[i].model), room, &path, &name);
        assert_true(luna_text_is(path, rows[i].path) || path.len == 0);
        assert_int_equal(path.len, strlen(rows[i].path));
        assert_true(luna_text_is(name, rows[i].name) || name.len == 0);
        assert_int_equal(name.len, strlen(rows[i].name));
    }
}

static void test_time_zone_and_calendar(void **state)
{
    (void)state;
    static const struct {
        uint64_t ms;
        int64_t offset;
        const char *want;
    } rows[] = {
        {0, -60, "|1969-12-31 23_00_00.png"},
        {951782400000, 0, "|2000-02-29 00_00_00.png"},
        {951868799999, 0, "|2000-02-29 23_59_59.png"},
        {951868799999, 1, "|2000-03-01 00_00_59.png"},
        {4107542400000, 0, "|2100-03-01 00_00_00.png"},
        {1735689599000, 330, "|2025-01-01 05_29_59.png"},
        {253402300799000, 0, "|9999-12-31 23_59_59.png"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        luna_name_request r = {.filename = text("%time:YYYY-mm-dd HH:MM:SS%"),
                               .ext = "png",
                               .created_ms = rows[i].ms,
                               .utc_offset_min = rows[i].offset};
        check_full(&r, rows[i].want);
    }
}

static void test_refused_paths(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "..",           "../x",  "a/../b",      "a/..",        "..\\x",
        "a\\..\\..\\b", "/etc",  "\\etc",       "C:/x",        "c:\\x",
        "a/... /b",     "a/.. ", "%time:../x%", "%model_dir%", "//host",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        luna_name_request r = plain();
        r.model_name = text("../../etc/x.ckpt");
        r.save_path = text(bad[i]);
        check_refused(&r, LUNA_FORBIDDEN);
        r = plain();
        r.model_name = text("../../etc/x.ckpt");
        r.filename = text(bad[i]);
        check_refused(&r, LUNA_FORBIDDEN);
    }
}

static void test_refused_else(void **state)
{
    (void)state;
    char long_text[5000];
    memset(long_text, 'a', sizeof long_text);
    luna_name_request r = plain();
    r.filename = (luna_text){"a\0b", 3};
    check_refused(&r, LUNA_BAD_REQUEST);
    r = plain();
    r.ext = "../x";
    check_refused(&r, LUNA_BAD_REQUEST);
    r.ext = "";
    check_refused(&r, LUNA_BAD_REQUEST);
    r = plain();
    r.created_ms = UINT64_MAX;
    check_refused(&r, LUNA_BAD_REQUEST);
    r.created_ms = 253402300799000;
    r.utc_offset_min = 60;
    check_refused(&r, LUNA_BAD_REQUEST);
    r.utc_offset_min = INT64_MIN;
    check_refused(&r, LUNA_BAD_REQUEST);
    r = plain();
    r.filename = (luna_text){long_text, 244};
    check_refused(&r, LUNA_TOO_LARGE);
    r.save_path = (luna_text){long_text, 255};
    check_refused(&r, LUNA_TOO_LARGE);
    r.save_path = (luna_text){long_text, sizeof long_text};
    check_refused(&r, LUNA_TOO_LARGE);
    r = plain();
    r.affix = (luna_text){long_text, sizeof long_text};
    check_refused(&r, LUNA_TOO_LARGE);
}

//  The longest name that is taken has room for every counter.
static void test_longest_name_and_candidates(void **state)
{
    (void)state;
    char stem[256], file[LUNA_NAME_PART_BYTES];
    luna_name name;
    memset(stem, 's', sizeof stem);
    luna_name_request r = {.filename = {stem, 245}, .ext = "png"};
    assert_int_equal(luna_name_make(&r, &name), LUNA_OK);
    luna_name_candidate(&name, LUNA_NAME_TRIES - 1, file);
    assert_int_equal(strlen(file), 255);
    assert_string_equal(file + 245, "_99998.png");
    luna_name_candidate(&name, 1, file);
    assert_string_equal(file + 245, "_00001.png");
    r.filename.len = 246;
    assert_int_equal(luna_name_make(&r, &name), LUNA_TOO_LARGE);
}

//  ---- noise ------------------------------------------------------------------------

static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static luna_text noise(char *room, size_t max)
{
    static const char *const bits[] = {
        "..", "/",    "\\",           ".",     "%time:",   "%",  "YYYY",       "CON",
        " ",  "\xC3", "\xA9",         "\n",    "%index%",  "C:", "nul.",       "a",
        "b",  ":",    "%model_path%", ".luna", "\xC2\x90", "%n", "%model_dir%"};
    const size_t count = next_random() % 12;
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        const char *bit = bits[next_random() % (sizeof bits / sizeof *bits)];
        if (len + strlen(bit) > max) break;
        memcpy(room + len, bit, strlen(bit));
        len += strlen(bit);
    }
    return (luna_text){room, len};
}

static void check_part(const char *part, size_t len)
{
    assert_in_range(len, 1, 255);
    assert_true(part[0] != '.');
    assert_true(part[len - 1] != '.' && part[len - 1] != ' ');
    assert_true(luna_utf8_valid(part, len));
    for (size_t i = 0; i < len; i++) {
        assert_in_range((uint8_t)part[i], 0x20, 0xFF);
        assert_null(memchr("<>:\"|?*\\\x7F", part[i], 9));
    }
    assert_false(len >= 3 && strncasecmp(part, "CON", 3) == 0 &&
                 (len == 3 || part[3] == '.'));
    assert_false(len >= 3 && strncasecmp(part, "nul", 3) == 0 &&
                 (len == 3 || part[3] == '.'));
}

static void test_noise_stays_inside(void **state)
{
    (void)state;
    size_t made = 0, forbidden = 0;
    for (int i = 0; i < 100000; i++) {
        char a[128], b[128], c[128], d[128], file[LUNA_NAME_PART_BYTES];
        luna_name name;
        const luna_name_request r = {.save_path = noise(a, sizeof a),
                                     .filename = noise(b, sizeof b),
                                     .affix = noise(c, sizeof c),
                                     .model_name = noise(d, sizeof d),
                                     .subdir = next_random() & 1,
                                     .ext = "png",
                                     .count = next_random() % 3,
                                     .created_ms = next_random() % WHEN_MS};
        const luna_err err = luna_name_make(&r, &name);
        forbidden += err == LUNA_FORBIDDEN;
        if (err != LUNA_OK) {
            assert_int_equal(err, LUNA_FORBIDDEN);
            continue;
        }
        made++;
        for (const char *at = name.folder; *at;) {
            const size_t len = strcspn(at, "/");
            check_part(at, len);
            at += len + (at[len] == '/');
        }
        luna_name_candidate(&name, (unsigned)(next_random() % LUNA_NAME_TRIES), file);
        assert_null(strchr(file, '/'));
        check_part(file, strlen(file));
    }
    assert_true(made > 1000 && forbidden > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_further_words),
        cmocka_unit_test(test_seed_may_be_unknown_or_odd),
        cmocka_unit_test(test_counter),
        cmocka_unit_test(test_discarded_and_sidecar),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_time_zone_and_calendar),
        cmocka_unit_test(test_refused_paths),
        cmocka_unit_test(test_refused_else),
        cmocka_unit_test(test_longest_name_and_candidates),
        cmocka_unit_test(test_noise_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
