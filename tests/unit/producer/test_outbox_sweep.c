//  The same life of an outbox, with the process killed at its N-th step to the disk, or
//  that step failing, for every N there is. What was reported kept must be delivered by
//  the next process, whole, once and in order.

#include "producer/box.h"

#include "producer/faulty_ops.h"

#include <sys/wait.h>

enum { JOBS = 4 };

//  What a life has reported before its end.
typedef struct report {
    bool submitted[JOBS];
    bool kept[JOBS];
    bool answered[JOBS];  //  accepted, or refused
    bool refused[JOBS];
    bool ended;  //  luna_client_destroy has returned
    size_t lost;
} report;

//  One step a message, so that a dead process has told what it did.
typedef struct word {
    char what;
    uint8_t job;
} word;

static void tell(int fd, char what, size_t job)
{
    const word one = {.what = what, .job = (uint8_t)job};
    assert_int_equal(write(fd, &one, sizeof one), sizeof one);
}

static report hear(int fd)
{
    report heard = {0};
    word one;
    while (read(fd, &one, sizeof one) == sizeof one) {
        if (one.what == 's') heard.submitted[one.job] = true;
        if (one.what == 'k') heard.kept[one.job] = true;
        if (one.what == 'a' || one.what == 'r') heard.answered[one.job] = true;
        if (one.what == 'r') heard.refused[one.job] = true;
        if (one.what == 'e') heard.ended = true;
        if (one.what == 'e') heard.lost = one.job;
    }
    return heard;
}

//  ---- one life --------------------------------------------------------------------

//  Said before the receipt is sent: from here on the file may go.
static void answer(stand_in *broker, uint8_t mark, int fd)
{
    const bool refuse = mark == 1;
    const luna_id id = box_take(broker, mark);
    tell(fd, refuse ? 'r' : 'a', mark);
    send_receipt(broker, &id, refuse ? "refused" : "accepted",
                 refuse ? "unknown_vae" : NULL);
}

//  Four jobs while the broker is away; it comes and takes two of them, refusing one.
static void live(int fd)
{
    stand_in broker;
    luna_options options = box_options();
    char ids[JOBS][LUNA_JOB_ID_BYTES];
    options.queue_bytes = 5 * BOX_BYTES / 2;  //  room for two: the others leave it
    stand_in_name(&broker);
    luna_client *client = client_of(&broker, &options);
    for (uint8_t i = 0; i < JOBS; i++) {
        memset(box_latent, i, sizeof box_latent);
        const luna_submission job = submission_of(box_latent, sizeof box_latent);
        //  With a disk that fails there is no room for all.
        if (luna_submit(client, &job, ids[i]) != LUNA_RC_OK) break;
        tell(fd, 's', i);
        if (luna_wait_kept(client, ids[i], faults.plan.code ? 200 : TAKE_MS) ==
            LUNA_RC_OK)
            tell(fd, 'k', i);
    }
    stand_in_open(&broker);
    welcome_up(&broker, client);
    for (uint8_t i = 0; i < 2; i++) answer(&broker, i, fd);
    const size_t lost = luna_client_destroy(&client, 0);
    tell(fd, 'e', lost);
    stand_in_close(&broker);
}

//  In a process of its own. True when the plan was reached.
static bool live_with(faults_plan plan, report *heard)
{
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        luna_outbox_ops = &faulty_ops;
        faults_set(plan);
        live(ends[1]);
        _exit(atomic_load(&faults.counted) >= plan.at ? 1 : 0);
    }
    close(ends[1]);
    *heard = hear(ends[0]);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) assert_int_equal(WTERMSIG(status), SIGKILL);
    return WIFSIGNALED(status) || WEXITSTATUS(status) == 1;
}

//  ---- what must hold --------------------------------------------------------------

//  The next process and a broker that takes everything. Which jobs came.
static void deliver(bool came[JOBS])
{
    stand_in broker;
    notices all;
    const luna_options options = box_options();
    size_t jobs;
    int latest = -1;
    notices_init(&all);
    stand_in_name(&broker);
    luna_client *client = client_of(&broker, &options);
    assert_ok(luna_notices(client, note, &all));
    luna_unsettled(client, &jobs, NULL);
    assert_in_range(jobs, 0, JOBS);
    stand_in_open(&broker);
    welcome_up(&broker, client);
    for (size_t i = 0; i < jobs; i++) {
        taken message;
        const luna_msg_job job = take_job(&broker, &message);
        const uint8_t mark =
            ((const uint8_t *)job.inputs.items[0].latent.data)[BOX_BYTES / 2];
        assert_true(mark < JOBS && (int)mark > latest);  //  in order, and once
        latest = mark;
        came[mark] = true;
        const luna_id id = job.id;
        release(&message);
        send_receipt(&broker, &id, "accepted", NULL);
    }
    assert_int_equal(luna_client_destroy(&client, TAKE_MS), 0);
    stand_in_close(&broker);
    for (size_t i = 0; i < all.count; i++)
        assert_string_not_equal(all.told[i].kind, "lost");
}

static void assert_holds(const report *heard)
{
    bool came[JOBS] = {0};
    size_t gone = 0;
    deliver(came);
    for (int i = 0; i < JOBS; i++) {
        if (heard->kept[i] && !heard->answered[i]) assert_true(came[i]);
        //  An answered one may come again, and is then known by its id.
        if (heard->submitted[i] && !came[i] && !heard->answered[i]) gone++;
    }
    //  A file that could neither be synced nor removed again counts as lost, and comes.
    if (heard->ended) assert_true(gone <= heard->lost);
    assert_int_equal(box_files("jobs", NULL), 0);
    assert_int_equal(box_files("tmp", NULL), 0);
    assert_int_equal(box_files("damaged", NULL), 0);
    if (heard->refused[1] && !came[1] && heard->kept[1])
        assert_true(box_files("refused", NULL) > 0);
}

static int sweep(faults_plan plan)
{
    bool hit = true;
    while (hit) {
        report heard;
        plan.at++;
        hit = live_with(plan, &heard);
        assert_holds(&heard);
        box_clean(NULL);
        if (!hit) assert_true(heard.ended && heard.lost == 0);
    }
    print_message("%d steps\n", plan.at - 1);
    return plan.at - 1;
}

static void killed_at_every_step(void **state)
{
    (void)state;
    assert_true(sweep((faults_plan){.code = 0}) > 5 * JOBS);
}

//  All but reading: a file that cannot be read is a loss, see test_outbox.
static const char steps[] = {OP_ALLOCATE, OP_WRITE,  OP_SYNC_DATA, OP_SYNC_DIR,
                             OP_RENAME,   OP_UNLINK, '\0'};

static void every_step_fails_once(void **state)
{
    (void)state;
    assert_true(sweep((faults_plan){.code = EIO, .only = steps}) > 4 * JOBS);
}

static void every_step_fails_from_one_on(void **state)
{
    (void)state;
    sweep((faults_plan){.code = ENOSPC, .only = steps, .from = true});
}

#define TEST(name) cmocka_unit_test_teardown(name, box_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(killed_at_every_step),
        TEST(every_step_fails_once),
        TEST(every_step_fails_from_one_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
