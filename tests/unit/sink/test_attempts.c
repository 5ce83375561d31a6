//  The file sink under several attempts: after a crash at any step, at the same moment,
//  and both. Whatever happens, the image is there once, whole, and nothing else is.

#include "sink_test.h"

#include "decoder/sink/hold.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

typedef struct crash {
    int at, seen;
    unsigned seed;  //  0: no yielding
} crash;

//  Dies before step `at`; on the way gives other attempts a chance to get between.
static int die_at(void *arg, const char *step)
{
    crash *c = arg;
    (void)step;
    if (++c->seen == c->at) _exit(42);
    if (c->seed && rand_r(&c->seed) % 3 == 0) sched_yield();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(ROOT);
    return 0;
}

//  A process that puts `image` and dies at step `at`. Exit 0: it lived to the end.
static pid_t start_attempt(const luna_image *image, crash c)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    static const char *const roots[] = {ROOT};
    luna_sink *sink;
    luna_image_record record;
    const luna_files_options options = {
        .roots = roots, .count = 1, .before = die_at, .arg = &c};
    if (luna_files_open(&options, &sink) != LUNA_OK) _exit(1);
    const luna_err err = luna_sink_put(sink, image, &record);
    if (err != LUNA_OK) fprintf(stderr, "%s\n", luna_error_text());
    _exit(err == LUNA_OK ? 0 : 2);
}

//  True when it lived to the end.
static bool end_attempt(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 42);
    return WEXITSTATUS(status) == 0;
}

static void check_once(const luna_image *image, const char *want)
{
    luna_sink *sink = open_sink(NULL, NULL);
    luna_image_record record, again;
    put_ok(sink, image, &record);
    put_ok(sink, image, &again);
    assert_string_equal(record.path, again.path);
    if (want) check_content(record.path, want);
    assert_int_equal(count_names(ROOT "/f", false), 1);
    assert_int_equal(count_names(ROOT "/f", true), 0);
    assert_int_equal(count_records(&image->key.job), 1);
    luna_sink_close(&sink);
}

static void test_crash_at_every_step(void **state)
{
    (void)state;
    const luna_name name = make_name("f", "img");
    int at = 0;
    bool lived = false;
    while (!lived) {
        const luna_image image = make_image(luna_id_new(), &name, "first");
        lived = end_attempt(start_attempt(&image, (crash){.at = ++at}));
        luna_image second = image;
        second.data = "again";
        check_once(&second, NULL);
        remove_tree(ROOT);
    }
    assert_true(at > 15);
}

static void test_crash_twice(void **state)
{
    (void)state;
    const luna_name name = make_name("f", "img");
    int first = 0;
    for (bool lived = false; !lived;) {
        first++;
        bool lived_too = false;
        for (int second = 1; !lived_too; second++) {
            const luna_image image = make_image(luna_id_new(), &name, "abc");
            lived = end_attempt(start_attempt(&image, (crash){.at = first}));
            lived_too = end_attempt(start_attempt(&image, (crash){.at = second}));
            check_once(&image, "abc");
            remove_tree(ROOT);
        }
    }
}

//  Somebody deletes the picture between its publication and the end of the attempt.
static void test_deleted_before_its_record(void **state)
{
    (void)state;
    const luna_name name = make_name("f", "img");
    size_t deleted = 0;
    for (int at = 1; at < 25; at++) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        end_attempt(start_attempt(&image, (crash){.at = at}));
        deleted += unlink(ROOT "/f/img.png") == 0;
        check_once(&image, "abc");
        remove_tree(ROOT);
    }
    assert_true(deleted > 3);
}

static void test_renamed_before_its_record(void **state)
{
    (void)state;
    const luna_name name = make_name("f", "img");
    size_t renamed = 0;
    for (int at = 1; at < 25; at++) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        const bool lived = end_attempt(start_attempt(&image, (crash){.at = at}));
        luna_sink *sink = open_sink(NULL, NULL);
        luna_image_record record;
        bool found;
        assert_int_equal(luna_sink_find(sink, &image.key, &record, &found), LUNA_OK);
        luna_sink_close(&sink);
        assert_true(found || !lived);
        if (!found && rename(ROOT "/f/img.png", ROOT "/f/mine.png") == 0) renamed++;
        check_once(&image, "abc");
        remove_tree(ROOT);
    }
    assert_true(renamed > 3);
}

//  ---- what a sweep makes of them
//  --------------------------------------------------------

static size_t count_marks(const luna_image *image)
{
    char id[LUNA_ID_TEXT_BYTES], side[128];
    luna_id_text(&image->key.job, id);
    snprintf(side, sizeof side, ROOT "/.luna/%s", id);
    return count_names(side, false);
}

//  Nobody comes back for the image: its job was cancelled. Only a picture that has its
//  name already keeps what its record is written from.
static void test_sweep_after_a_crash_at_every_step(void **state)
{
    (void)state;
    const luna_name name = make_name("f", "img");
    uint64_t removed = 0;
    size_t unnamed = 0;
    int at = 0;
    for (bool lived = false; !lived;) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        luna_image_record record;
        bool found;
        lived = end_attempt(start_attempt(&image, (crash){.at = ++at}));
        luna_sink *sink = open_sink(NULL, NULL);
        removed += sweep(sink);
        assert_int_equal(luna_sink_find(sink, &image.key, &record, &found), LUNA_OK);
        const size_t named = count_names(ROOT "/f", false);
        assert_int_equal(count_names(ROOT "/f", true), named && !found ? 1 : 0);
        assert_int_equal(count_marks(&image) > 0, named > 0);
        unnamed += named == 0;
        luna_sink_close(&sink);
        check_once(&image, "abc");
        remove_tree(ROOT);
    }
    assert_true(removed > 5 && unnamed > 5);
}

//  A process that puts `image`; before step `at` it says so, and waits for a word.
typedef struct halt {
    int at, seen;
    int tell, hear;
} halt;

static int halt_at(void *arg, const char *step)
{
    halt *h = arg;
    char word = 'h';
    (void)step;
    if (++h->seen != h->at) return 0;
    if (write(h->tell, &word, 1) != 1 || read(h->hear, &word, 1) != 1) _exit(3);
    return 0;
}

typedef struct halted {
    pid_t pid;
    int hear, tell;
} halted;

static void run_halted(const luna_image *image, halt h)
{
    static const char *const roots[] = {ROOT};
    luna_sink *sink;
    luna_image_record record;
    const luna_files_options options = {
        .roots = roots, .count = 1, .before = halt_at, .arg = &h};
    if (luna_files_open(&options, &sink) != LUNA_OK) _exit(1);
    _exit(luna_sink_put(sink, image, &record) == LUNA_OK ? 0 : 2);
}

//  False when it has fewer steps, and has ended.
static bool start_halted(const luna_image *image, int at, halted *out)
{
    int from[2], to[2];
    char word;
    assert_int_equal(pipe(from), 0);
    assert_int_equal(pipe(to), 0);
    out->pid = fork();
    assert_true(out->pid >= 0);
    if (out->pid == 0) {
        close(from[0]);
        close(to[1]);
        run_halted(image, (halt){.at = at, .tell = from[1], .hear = to[0]});
    }
    close(from[1]);
    close(to[0]);
    out->hear = from[0];
    out->tell = to[1];
    return read(out->hear, &word, 1) == 1;
}

static void let_go(halted *h, bool halts)
{
    int status;
    if (halts) assert_int_equal(write(h->tell, "g", 1), 1);
    assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(h->hear);
    close(h->tell);
}

//  Whatever step a living attempt is at, alone or on the anchor of one that died, a sweep
//  leaves its files to it.
static void check_living(int died_at)
{
    const luna_name name = make_name("f", "img");
    bool halts = true;
    for (int at = 1; halts; at++) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        halted living;
        if (died_at) end_attempt(start_attempt(&image, (crash){.at = died_at}));
        halts = start_halted(&image, at, &living);
        luna_sink *sink = open_sink(NULL, NULL);
        const size_t hidden = count_names(ROOT "/f", true);
        luna_image_record record;
        bool found;
        if (halts && at > 3) assert_true(count_marks(&image) > 0);
        const uint64_t removed = sweep(sink);
        assert_int_equal(luna_sink_find(sink, &image.key, &record, &found), LUNA_OK);
        //  Before it has begun, and when its record is written, there is nothing of it.
        if (halts && at > 2 && !found) {
            assert_int_equal(removed, 0);
            assert_int_equal(count_names(ROOT "/f", true), hidden);
        }
        luna_sink_close(&sink);
        let_go(&living, halts);
        check_once(&image, "abc");
        remove_tree(ROOT);
    }
}

static void test_sweep_beside_a_living_attempt(void **state)
{
    (void)state;
    check_living(0);
    for (int died_at = 6; died_at < 12; died_at++) check_living(died_at);
}

//  The mark of an attempt on another host, which no lock tells of. NULL: a power cut took
//  its text.
static void move_to_host(const luna_image *image, const char *host)
{
    char id[LUNA_ID_TEXT_BYTES], side[128];
    struct dirent *entry;
    luna_id_text(&image->key.job, id);
    snprintf(side, sizeof side, ROOT "/.luna/%s", id);
    DIR *dir = opendir(side);
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", side, entry->d_name);
        if (!strstr(entry->d_name, ".try")) continue;
        FILE *mark = fopen(path, "w");
        assert_non_null(mark);
        if (host) fprintf(mark, "f\n%s\n", host);
        fclose(mark);
    }
    closedir(dir);
}

static void test_sweep_leaves_other_hosts_alone(void **state)
{
    (void)state;
    char here[LUNA_HOST_BYTES], boot[LUNA_HOST_BYTES + 16], other[LUNA_HOST_BYTES + 32];
    luna_host_text(here);
    assert_true(luna_host_is_this(here));
    const char *machine = strchr(here, ' ');
    assert_non_null(machine);
    snprintf(boot, sizeof boot, "earlier-start%s", machine);
    snprintf(other, sizeof other, "%s.elsewhere", boot);
    //  A machine without an id is known by its start only.
    assert_int_equal(luna_host_is_this(boot), strncmp(machine, " - ", 3) != 0);
    assert_false(luna_host_is_this(""));
    const char *const hosts[] = {other, "elsewhere", "", NULL};
    const luna_name name = make_name("f", "img");
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        end_attempt(start_attempt(&image, (crash){.at = 8}));
        const size_t hidden = count_names(ROOT "/f", true);
        assert_true(hidden > 0);
        move_to_host(&image, hosts[i]);
        luna_sink *sink = open_sink(NULL, NULL);
        assert_int_equal(sweep(sink), 0);
        assert_int_equal(count_names(ROOT "/f", true), hidden);
        move_to_host(&image, here);
        assert_int_equal(sweep(sink), hidden);
        assert_int_equal(count_names(ROOT "/f", true), 0);
        luna_sink_close(&sink);
        remove_tree(ROOT);
    }
}

//  Without time nothing is looked at, and that is told.
static void test_sweep_ends_in_time(void **state)
{
    (void)state;
    const luna_name name = make_name("f", "img");
    luna_swept swept;
    luna_sink *sink = NULL;
    for (int i = 0; i < 3; i++) {
        const luna_image image = make_image(luna_id_new(), &name, "abc");
        end_attempt(start_attempt(&image, (crash){.at = 6}));
    }
    sink = open_sink(NULL, NULL);
    assert_int_equal(luna_sink_sweep(sink, 3600000, 0, &swept), LUNA_OK);
    assert_int_equal(swept.passed_over, 3);
    assert_int_equal(swept.removed, 0);
    assert_int_equal(sweep(sink), 3);
    luna_sink_close(&sink);
}

//  ---- at the same moment -----------------------------------------------------------

static void sweep_for_ever(void)
{
    luna_sink *sink = NULL;
    luna_swept swept;
    static const char *const roots[] = {ROOT};
    if (luna_files_open(&(luna_files_options){.roots = roots, .count = 1}, &sink) !=
        LUNA_OK)
        _exit(1);
    for (;;)
        if (luna_sink_sweep(sink, 3600000, 1000, &swept) != LUNA_OK) _exit(2);
}

//  Two decoders that start again and again beside the attempts, and are killed.
static void start_sweeps(pid_t sweeps[2])
{
    for (int i = 0; i < 2; i++) {
        sweeps[i] = fork();
        assert_true(sweeps[i] >= 0);
        if (sweeps[i] == 0) sweep_for_ever();
    }
}

static void end_sweeps(const pid_t sweeps[2])
{
    for (int i = 0; i < 2; i++) {
        int status;
        assert_int_equal(kill(sweeps[i], SIGKILL), 0);
        assert_int_equal(waitpid(sweeps[i], &status, 0), sweeps[i]);
        assert_true(WIFSIGNALED(status));
    }
}

static void race(unsigned round, int processes, bool deaths, bool swept)
{
    pid_t sweeps[2];
    if (swept) start_sweeps(sweeps);
    pid_t pids[8];
    char bytes[8][32];
    const luna_name name = make_name("f", "img");
    luna_image image = make_image(luna_id_new(), &name, "x");
    for (int i = 0; i < processes; i++) {
        snprintf(bytes[i], sizeof bytes[i], "attempt %d", i);
        image.data = bytes[i];
        image.len = strlen(bytes[i]);
        unsigned seed = round * 8 + (unsigned)i + 1;
        const int at = deaths ? 1 + rand_r(&seed) % 40 : 0;
        pids[i] = start_attempt(&image, (crash){.at = at, .seed = seed});
    }
    for (int i = 0; i < processes; i++) end_attempt(pids[i]);
    if (swept) end_sweeps(sweeps);
    check_once(&image, NULL);
    remove_tree(ROOT);
}

static void test_two_attempts_at_once(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 100; round++) race(round, 2, false, false);
}

static void test_five_attempts_at_once_some_die(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) race(round, 5, true, false);
}

static void test_sweeps_beside_attempts_that_die(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) race(round, 4, true, true);
}

#define WRITERS 4
#define IMAGES  200

static void write_images(int writer)
{
    static const char *const roots[] = {ROOT};
    luna_sink *sink;
    luna_image_record record;
    const luna_name name = make_name("f", "img");
    if (luna_files_open(&(luna_files_options){.roots = roots, .count = 1}, &sink) !=
        LUNA_OK)
        _exit(1);
    luna_image image = make_image(luna_id_new(), &name, "x");
    for (int i = 0; i < IMAGES; i++) {
        char bytes[64];
        snprintf(bytes, sizeof bytes, "writer %d image %d", writer, i);
        image.key.index = (uint64_t)i;
        image.data = bytes;
        image.len = strlen(bytes);
        if (luna_sink_put(sink, &image, &record) != LUNA_OK) _exit(2);
    }
    _exit(0);
}

//  All want the same names: every image must be there, each content once.
static void test_writers_share_a_template(void **state)
{
    (void)state;
    static bool seen[WRITERS][IMAGES];
    pid_t pids[WRITERS];
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < WRITERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) write_images(i);
    }
    for (int i = 0; i < WRITERS; i++) assert_true(end_attempt(pids[i]));
    assert_int_equal(count_names(ROOT "/f", true), 0);
    assert_int_equal(count_names(ROOT "/f", false), WRITERS * IMAGES);
    for (int k = 0; k < WRITERS * IMAGES; k++) {
        char path[64], *got;
        size_t len;
        int writer, image;
        snprintf(path, sizeof path, k ? ROOT "/f/img_%05d.png" : ROOT "/f/img.png", k);
        assert_int_equal(luna_file_read(path, 1000, &got, &len), LUNA_OK);
        assert_int_equal(sscanf(got, "writer %d image %d", &writer, &image), 2);
        free(got);
        assert_in_range(writer, 0, WRITERS - 1);
        assert_in_range(image, 0, IMAGES - 1);
        assert_false(seen[writer][image]);
        seen[writer][image] = true;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_teardown(test, teardown)
        T(test_crash_at_every_step),
        T(test_crash_twice),
        T(test_deleted_before_its_record),
        T(test_renamed_before_its_record),
        T(test_sweep_after_a_crash_at_every_step),
        T(test_sweep_beside_a_living_attempt),
        T(test_sweep_leaves_other_hosts_alone),
        T(test_sweep_ends_in_time),
        T(test_two_attempts_at_once),
        T(test_five_attempts_at_once_some_die),
        T(test_sweeps_beside_attempts_that_die),
        T(test_writers_share_a_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
