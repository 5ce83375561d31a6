//  Four processes save into one folder under one name: every picture gets a file of its
//  own, none is overwritten, nothing temporary is left. LUNA_RACE_FILES sets how many.

#include "sink_test.h"

#include <sys/wait.h>

#define PROCESSES 4
#define FILES     300

static size_t files_wanted(void)
{
    const char *text = getenv("LUNA_RACE_FILES");
    const size_t files = text ? strtoul(text, NULL, 10) : FILES;
    return files < PROCESSES ? PROCESSES : files - files % PROCESSES;
}

//  Every second picture has a sidecar, and all say which they are.
static int save_some(size_t first, size_t count, bool counter)
{
    luna_sink *sink = open_sink(NULL, NULL);
    const luna_name name = make_name("race", counter ? "img_\x01" : "img");
    size_t failed = 0;
    for (size_t i = first; i < first + count; i++) {
        char bytes[32];
        luna_image_record record;
        snprintf(bytes, sizeof bytes, "picture %zu", i);
        luna_image image = make_image(luna_id_new(), &name, bytes);
        if (i & 1) image.sidecar = bytes;
        if (i & 1) image.sidecar_len = image.len;
        failed += luna_sink_put(sink, &image, &record) != LUNA_OK;
    }
    luna_sink_close(&sink);
    return failed == 0 ? 0 : 1;
}

static void race(size_t files, bool counter)
{
    pid_t child[PROCESSES];
    const size_t each = files / PROCESSES;
    for (size_t p = 0; p < PROCESSES; p++) {
        child[p] = fork();
        if (child[p] == 0) _exit(save_some(p * each, each, counter));
        assert_true(child[p] > 0);
    }
    for (size_t p = 0; p < PROCESSES; p++) {
        int status;
        assert_int_equal(waitpid(child[p], &status, 0), child[p]);
        assert_int_equal(status, 0);
    }
}

//  The number a file says it is; a sidecar says that of its picture.
static size_t number_in(const char *folder, const char *name)
{
    char path[512], *text;
    size_t len, number = SIZE_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(luna_file_read(path, 64, &text, &len), LUNA_OK);
    assert_int_equal(sscanf(text, "picture %zu", &number), 1);
    free(text);
    return number;
}

static void check_folder(const char *folder, size_t files)
{
    unsigned char *seen = calloc(files, 1);
    size_t pictures = 0, sidecars = 0, hidden = 0;
    struct dirent *entry;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        hidden += name[0] == '.';
        if (name[0] == '.') continue;
        const size_t number = number_in(folder, name), len = strlen(name);
        assert_true(number < files);
        if (strcmp(name + len - 5, ".json") == 0) {
            char beside[512] = "";
            memcpy(beside, name, len - 5);
            assert_int_equal(number_in(folder, beside), number);
            sidecars++;
        } else {
            pictures += !seen[number];
            seen[number] = 1;
        }
    }
    closedir(dir);
    free(seen);
    print_message("%zu files, %zu sidecars, %zu temporary\n", pictures, sidecars, hidden);
    assert_int_equal(pictures, files);
    assert_int_equal(sidecars, files / 2);
    assert_int_equal(hidden, 0);
}

static void test_race_for_one_name(void **state)
{
    (void)state;
    const size_t files = files_wanted();
    race(files, false);
    check_folder(ROOT "/race", files);
    remove_tree(ROOT);
}

static void test_race_for_one_counter(void **state)
{
    (void)state;
    const size_t files = files_wanted() / 3 / PROCESSES * PROCESSES + PROCESSES;
    race(files, true);
    check_folder(ROOT "/race", files);
    assert_int_equal(access(ROOT "/race/img_00001.png", F_OK), 0);
    remove_tree(ROOT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_race_for_one_name),
        cmocka_unit_test(test_race_for_one_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
