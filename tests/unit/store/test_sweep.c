//  The same life of four jobs, with the process killed at its N-th step to the disk, or
//  that step failing, for every N there is, and with the power staying on or going off
//  in several ways. Whatever was reported done must hold after the next open, and what
//  that has shown after another loss of power.

//  So short that its checkpoints are part of the life.
#define KIT_LOG_BYTES 32768
#include "faults.h"

#include "common/log.h"

#include <sys/wait.h>

#define JOBS          4
#define STEPS_OF_LIFE 14

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#else
#define SLOW 0
#endif

//  What a job looks like after a step of its life.
typedef struct look {
    bool there;
    luna_job_state state;
    uint64_t attempts;
    uint64_t lost;
    uint64_t images;
} look;

static const struct {
    int job;
    look after;
} life[STEPS_OF_LIFE] = {
    {0, {true, LUNA_JOB_PENDING, 0, 0, 0}},      //  put
    {1, {true, LUNA_JOB_PENDING, 0, 0, 0}},      //  put
    {0, {true, LUNA_JOB_IN_PROGRESS, 1, 0, 0}},  //  attempt
    {0, {true, LUNA_JOB_IN_PROGRESS, 1, 0, 1}},  //  images
    {2, {true, LUNA_JOB_PENDING, 0, 0, 0}},      //  put
    {0, {true, LUNA_JOB_COMPLETED, 1, 0, 2}},    //  finish with an image
    {1, {true, LUNA_JOB_IN_PROGRESS, 1, 0, 0}},  //  attempt
    {1, {true, LUNA_JOB_PENDING, 1, 1, 0}},      //  requeue
    {2, {true, LUNA_JOB_FAILED, 0, 0, 0}},       //  finish
    {2, {true, LUNA_JOB_PENDING, 0, 0, 0}},      //  retry
    {3, {true, LUNA_JOB_PENDING, 0, 0, 0}},      //  put
    {1, {true, LUNA_JOB_CANCELLED, 1, 1, 0}},    //  finish
    {3, {true, LUNA_JOB_FAILED, 0, 0, 0}},       //  finish
    {0, {false, LUNA_JOB_ANY, 0, 0, 0}},         //  forget
};

static kit_job jobs[JOBS];
static luna_msg_image pictures[2];

static void make_ops(luna_store_op ops[STEPS_OF_LIFE])
{
    const luna_store_op all[STEPS_OF_LIFE] = {
        kit_put(&jobs[0]),
        kit_put(&jobs[1]),
        kit_attempt(jobs[0].id, 1),
        kit_images(jobs[0].id, pictures, 1),
        kit_put(&jobs[2]),
        kit_finish(jobs[0].id, LUNA_JOB_COMPLETED),
        kit_attempt(jobs[1].id, 1),
        kit_requeue(jobs[1].id, 1, 0),
        kit_finish(jobs[2].id, LUNA_JOB_FAILED),
        kit_of(LUNA_STORE_RETRY, jobs[2].id),
        kit_put(&jobs[3]),
        kit_finish(jobs[1].id, LUNA_JOB_CANCELLED),
        kit_finish(jobs[3].id, LUNA_JOB_FAILED),
        kit_forget(1000, 10),
    };
    memcpy(ops, all, sizeof all);
    ops[5].in.finish.finished_ms = 100;
    ops[5].in.finish.images = (luna_store_images){.items = pictures, .count = 2};
}

//  ---- one life --------------------------------------------------------------------

//  Says which steps were reported done, by writing their numbers to `tell`.
static void live(luna_store *store, bool together, int tell)
{
    luna_store_op ops[STEPS_OF_LIFE];
    make_ops(ops);
    if (together)
        for (int i = 0; i < STEPS_OF_LIFE; i++) luna_store_submit(store, &ops[i]);
    for (int i = 0; i < STEPS_OF_LIFE; i++) {
        const uint8_t number = (uint8_t)i;
        if (!together) luna_store_submit(store, &ops[i]);
        const luna_store_op *op = kit_collect(store);
        const bool idle = op->kind == LUNA_STORE_FORGET && op->changed == 0;
        if (op->err == LUNA_OK && !idle && write(tell, &number, 1) != 1) abort();
        luna_store_op_clear(&ops[i]);
    }
}

static bool live_and_close(bool together, int tell)
{
    luna_store *store = NULL;
    luna_store_jobs active;
    const luna_store_options options = kit_options(&faulty_files);
    if (luna_store_open(&options, &store, &active) != LUNA_OK) return false;
    luna_store_jobs_free(&active);
    live(store, together, tell);
    luna_store_close(&store);
    return true;
}

//  In a process of its own. Returns whether it died of the plan.
static bool die_at(int at, bool together, int tell)
{
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        faults_set(STEPS, at, 0, false);
        _exit(live_and_close(together, tell) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) assert_int_equal(WTERMSIG(status), SIGKILL);
    if (WIFEXITED(status)) assert_int_equal(WEXITSTATUS(status), 0);
    return WIFSIGNALED(status);
}

//  Returns whether the plan was reached.
static bool fail_at(int at, int code, bool from, bool together, int tell)
{
    faults_set(STEPS, at, code, from);
    live_and_close(together, tell);
    const bool hit = atomic_load(&faults.counted) >= at;
    faults_set(STEPS, 0, 0, false);
    return hit;
}

//  ---- what must hold --------------------------------------------------------------

static look look_at(luna_store *store, int job)
{
    look seen = {.state = LUNA_JOB_ANY};
    luna_store_op op = kit_of(LUNA_STORE_GET, jobs[job].id);
    const luna_err err = kit_run(store, &op);
    assert_true(err == LUNA_OK || err == LUNA_NOT_FOUND);
    if (err == LUNA_OK) {
        const luna_msg_job_info *info = &op.found.items[0].info;
        seen = (look){true, op.state, info->attempts, info->lost, info->files.count};
        //  The failure of the life's own, not one that open has found.
        if (op.state == LUNA_JOB_FAILED)
            assert_true(luna_text_is(info->error, "bad_latent"));
    }
    luna_store_op_clear(&op);
    return seen;
}

static bool same(const look *a, const look *b, bool exact)
{
    if (a->there != b->there || a->state != b->state) return false;
    return !exact ||
           (a->attempts == b->attempts && a->lost == b->lost && a->images == b->images);
}

//  As after the last step that was reported done, or any later one. After a failed step
//  the later ones leave out what it did, so only the state is compared then.
static void assert_kept(const look *seen, int job, const bool *done, bool exact)
{
    const look nothing = {.state = LUNA_JOB_ANY};
    bool found = same(seen, &nothing, exact);
    for (int i = 0; i < STEPS_OF_LIFE; i++) {
        if (life[i].job != job) continue;
        if (done[i]) found = false;
        found |= same(seen, &life[i].after, exact);
    }
    if (!found)
        fail_msg("job %d is %s, %llu attempts, %llu lost, %llu images", job,
                 seen->there ? luna_job_state_name(seen->state) : "away",
                 (unsigned long long)seen->attempts, (unsigned long long)seen->lost,
                 (unsigned long long)seen->images);
}

static void assert_payload(const look *seen, int job)
{
    const bool kept = seen->there && seen->state != LUNA_JOB_COMPLETED &&
                      seen->state != LUNA_JOB_CANCELLED;
    if (kept)
        assert_true(kit_payload_is(&jobs[job]));
    else
        assert_false(kit_has("ready", jobs[job].id));
}

//  Only what was never reported stored may be damaged.
static void assert_quarantine(const bool *done)
{
    for (int i = 0; i < STEPS_OF_LIFE; i++)
        if (done[i] && life[i].after.there)
            assert_false(kit_has("quarantine", jobs[life[i].job].id));
}

static void look_at_all(luna_store *store, look seen[JOBS])
{
    for (int j = 0; j < JOBS; j++) {
        seen[j] = look_at(store, j);
        assert_payload(&seen[j], j);
    }
}

//  In a process that ends without closing the store.
static void open_look_and_die(look *seen)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        look_at_all(kit_open_with(&faulty_files, NULL), seen);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static look *shared_looks(void)
{
    look *seen = mmap(NULL, JOBS * sizeof *seen, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(seen != MAP_FAILED);
    return seen;
}

//  What the first open has told is kept over a second loss of power.
static void assert_holds(const bool *done, bool exact, power_loss loss)
{
    look *seen = shared_looks(), now[JOBS];
    power_recording = true;
    open_look_and_die(seen);
    for (int j = 0; j < JOBS; j++) assert_kept(&seen[j], j, done, exact);
    assert_int_equal(kit_files_in("spool/tmp"), 0);
    assert_quarantine(done);
    power_lose(loss == POWER_KEPT ? POWER_ALL : loss);

    luna_store *store = kit_open();
    look_at_all(store, now);
    for (int j = 0; j < JOBS; j++) assert_true(same(&now[j], &seen[j], true));
    for (int j = 0; j < JOBS; j++)  //  the producers send again
        assert_int_equal(kit_do(store, kit_put(&jobs[j])),
                         seen[j].there ? LUNA_EXISTS : LUNA_OK);
    luna_store_close(&store);

    store = kit_open();
    look_at_all(store, now);
    for (int j = 0; j < JOBS; j++)
        if (seen[j].there) assert_true(same(&now[j], &seen[j], true));
    luna_store_close(&store);
    munmap(seen, JOBS * sizeof *seen);
}

//  ---- the sweeps ------------------------------------------------------------------

typedef struct sweep {
    int code;  //  0: the process dies
    bool from;
    bool together;
    power_loss loss;  //  after it
} sweep;

static bool one_life(const sweep *how, int at, bool done[STEPS_OF_LIFE])
{
    int ends[2];
    uint8_t number;
    memset(done, 0, STEPS_OF_LIFE * sizeof *done);
    assert_int_equal(pipe(ends), 0);
    power_reset();
    power_recording = true;
    const bool hit = how->code == 0
                         ? die_at(at, how->together, ends[1])
                         : fail_at(at, how->code, how->from, how->together, ends[1]);
    close(ends[1]);
    while (read(ends[0], &number, 1) == 1) done[number] = true;
    close(ends[0]);
    power_lose(how->loss);
    return hit;
}

static void run_sweep(sweep how)
{
    bool done[STEPS_OF_LIFE], hit = true;
    int at = 0;
    while (hit) {
        hit = one_life(&how, ++at, done);
        assert_holds(done, how.code == 0, how.loss);
        kit_clean(NULL);
    }
    for (int i = 0; i < STEPS_OF_LIFE; i++) assert_true(done[i]);  //  the last one
    assert_true(at > STEPS_OF_LIFE);
    printf("%d steps\n", at - 1);
}

//  With every kind of loss after the kill; after a failure, and with the sanitizers,
//  which are slow, with none and the worst.
static void run_sweeps(sweep how)
{
    const power_loss last = how.code || SLOW ? POWER_ALL : POWER_ODD;
    for (how.loss = POWER_KEPT; how.loss <= last; how.loss++) run_sweep(how);
}

//  The recovery from a kill and a loss is killed in turn, with the same loss again.
static bool die_opening_at(int at)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        luna_store_jobs active;
        luna_store *store;
        faults_set(STEPS, at, 0, false);
        store = kit_open_with(&faulty_files, &active);
        if (!store) _exit(1);
        luna_store_close(&store);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) assert_int_equal(WEXITSTATUS(status), 0);
    return WIFSIGNALED(status);
}

static void run_recoveries(int life_at, power_loss loss)
{
    const sweep how = {.loss = loss};
    bool done[STEPS_OF_LIFE], hit = true;
    for (int at = 1; hit; at++) {
        assert_true(one_life(&how, life_at, done));
        power_recording = true;
        hit = die_opening_at(at);
        power_lose(loss);
        assert_holds(done, true, loss);
        kit_clean(NULL);
    }
}

static void recovery_killed_at_every_step(void **state)
{
    (void)state;
    for (int life_at = 60; life_at < 200; life_at += SLOW ? 40 : 13) {
        run_recoveries(life_at, POWER_KEPT);
        run_recoveries(life_at, POWER_ALL);
        if (!SLOW) run_recoveries(life_at, POWER_ODD);
    }
}

static void killed_at_every_step_one_by_one(void **state)
{
    (void)state;
    run_sweeps((sweep){.code = 0});
}

static void killed_at_every_step_in_groups(void **state)
{
    (void)state;
    run_sweeps((sweep){.code = 0, .together = true});
}

static void every_step_fails_once(void **state)
{
    (void)state;
    run_sweeps((sweep){.code = EIO});
}

static void every_step_fails_once_in_groups(void **state)
{
    (void)state;
    run_sweeps((sweep){.code = EIO, .together = true});
}

static void disk_full_from_every_step_on(void **state)
{
    (void)state;
    run_sweeps((sweep){.code = ENOSPC, .from = true});
}

static int make_jobs(void **state)
{
    (void)state;
    for (unsigned i = 0; i < JOBS; i++) jobs[i] = kit_job_new(i);
    for (unsigned i = 0; i < 2; i++) pictures[i] = kit_image(i, "/o/a.png");
    return 0;
}

static int free_jobs(void **state)
{
    (void)state;
    for (unsigned i = 0; i < JOBS; i++) free(jobs[i].body);
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, kit_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(killed_at_every_step_one_by_one), TEST(killed_at_every_step_in_groups),
        TEST(every_step_fails_once),           TEST(every_step_fails_once_in_groups),
        TEST(disk_full_from_every_step_on),    TEST(recovery_killed_at_every_step),
    };
    char memory[64];
    luna_log_start("sweep", LUNA_LOG_ERROR);
    faults_start();
    power_start();
    kit_enter_memory(memory);
    const int failed = cmocka_run_group_tests(tests, make_jobs, free_jobs);
    kit_leave(memory);
    return failed;
}
