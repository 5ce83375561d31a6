//  The outbox of a client: kept, sent later, by whom, in which order, within which
//  bounds.

#include "producer/box.h"

#include "producer/faulty_ops.h"
#include "proto/payload.h"

#include <sys/wait.h>

typedef struct scene {
    stand_in broker;
    luna_options options;
    luna_client *client;
    notices all;
} scene;

//  A client whose broker is not there yet.
static void join(scene *s)
{
    notices_init(&s->all);
    s->client = client_of(&s->broker, &s->options);
    assert_ok(luna_notices(s->client, note, &s->all));
}

static scene begin(void)
{
    scene s = {.options = box_options()};
    stand_in_name(&s.broker);
    return s;
}

static void open_broker(scene *s)
{
    stand_in_open(&s->broker);
    welcome_up(&s->broker, s->client);
}

//  Ends the client, which must have nothing left, and its broker.
static void end(scene *s)
{
    assert_int_equal(luna_client_destroy(&s->client, TAKE_MS), 0);
    stand_in_close(&s->broker);
    assert_int_equal(box_files("jobs", NULL), 0);
    assert_int_equal(box_files("tmp", NULL), 0);
}

//  Passes over what the test does not care about.
static told find_notice(notices *all, const char *kind)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (luna_now_ms() < limit_ms) {
        while (all->seen < notices_count(all)) {
            const told one = all->told[all->seen++];
            if (strcmp(one.kind, kind) == 0) return one;
        }
        usleep(1000);
    }
    fail_msg("nobody told of '%s'", kind);
    return (told){0};
}

//  ---- from one process to the next ------------------------------------------------

static void the_next_client_sends_what_is_left(void **state)
{
    (void)state;
    scene s = begin();
    char ids[5][LUNA_JOB_ID_BYTES];
    join(&s);
    for (uint8_t i = 0; i < 3; i++) box_submit(s.client, i, ids[i]);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    assert_int_equal(box_files("jobs", NULL), 3);
    join(&s);
    size_t jobs;
    uint64_t bytes;
    luna_unsettled(s.client, &jobs, &bytes);
    assert_int_equal(jobs, 3);
    assert_in_range(bytes, 3 * BOX_BYTES, 4 * BOX_BYTES);
    for (uint8_t i = 3; i < 5; i++) box_submit(s.client, i, ids[i]);
    open_broker(&s);
    for (uint8_t i = 0; i < 5; i++) {
        box_accept(&s.broker, i, ids[i]);
        assert_ok(luna_wait_receipt(s.client, ids[i], TAKE_MS, NULL));
    }
    find_notice(&s.all, "outbox");
    find_notice(&s.all, "delivered");
    end(&s);
}

//  It was under way when its process ended: the broker sees one job, sent twice.
static void a_job_is_the_same_whoever_sends_it(void **state)
{
    (void)state;
    scene s = begin();
    taken first, second;
    char id[LUNA_JOB_ID_BYTES];
    luna_receipt receipt;
    join(&s);
    open_broker(&s);
    box_keep(s.client, 1, id);
    take_job(&s.broker, &first);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    join(&s);
    welcome_up(&s.broker, s.client);
    const luna_msg_job job = take_job(&s.broker, &second);
    assert_same_id(id, &job.id);
    assert_memory_equal(&job.client, &s.broker.client, sizeof job.client);
    assert_int_equal(zmq_msg_size(&first.frame), zmq_msg_size(&second.frame));
    assert_memory_equal(zmq_msg_data(&first.frame), zmq_msg_data(&second.frame),
                        zmq_msg_size(&first.frame));
    const luna_msg_receipt known = {
        .id = job.id, .status = luna_text_of("accepted"), .duplicate = true};
    send_control(&s.broker, LUNA_MSG_RECEIPT, &known);
    assert_ok(luna_wait_receipt(s.client, id, TAKE_MS, &receipt));
    assert_true(receipt.duplicate);
    release(&first);
    release(&second);
    end(&s);
}

static void a_killed_process_loses_nothing_it_has_kept(void **state)
{
    (void)state;
    scene s = begin();
    int ends[2];
    char ids[2][LUNA_JOB_ID_BYTES];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        join(&s);
        for (uint8_t i = 0; i < 2; i++) box_keep(s.client, i, ids[i]);
        if (write(ends[1], ids, sizeof ids) < 0) _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(read(ends[0], ids, sizeof ids), sizeof ids);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ends[0]);
    close(ends[1]);
    join(&s);
    open_broker(&s);
    for (uint8_t i = 0; i < 2; i++) {
        box_accept(&s.broker, i, ids[i]);
        assert_ok(luna_wait_receipt(s.client, ids[i], TAKE_MS, NULL));
    }
    end(&s);
}

static void an_id_in_the_outbox_is_taken(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES], same[LUNA_JOB_ID_BYTES];
    join(&s);
    box_submit(s.client, 1, id);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    join(&s);
    luna_submission job = submission_of(box_latent, sizeof box_latent);
    job.job_id = id;
    assert_int_equal(luna_submit(s.client, &job, same), LUNA_RC_EXISTS);
    assert_ok(luna_wait_kept(s.client, id, 0));
    open_broker(&s);
    box_accept(&s.broker, 1, id);
    assert_ok(luna_wait_receipt(s.client, id, TAKE_MS, NULL));
    end(&s);
}

//  Two folders were merged by hand: one identity at a time, nothing is sent under the
//  wrong one.
static void jobs_of_another_identity_wait_for_their_turn(void **state)
{
    (void)state;
    scene s = begin();
    char ids[2][LUNA_JOB_ID_BYTES], name[256], from[320], to[320];
    join(&s);
    box_submit(s.client, 0, ids[0]);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    assert_int_equal(box_files("jobs", name), 1);
    snprintf(from, sizeof from, BOX "/jobs/%s", name);
    assert_int_equal(rename(from, "aside"), 0);
    join(&s);
    box_submit(s.client, 1, ids[1]);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    snprintf(to, sizeof to, BOX "/jobs/%s", name);
    to[strlen(BOX "/jobs/") + 19] = '9';  //  the later one by its order
    assert_int_equal(rename("aside", to), 0);
    join(&s);
    open_broker(&s);
    box_accept(&s.broker, 1, ids[1]);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    assert_int_equal(luna_client_destroy(&s.client, TAKE_MS), 0);
    assert_int_equal(box_files("jobs", NULL), 1);
    join(&s);
    welcome_up(&s.broker, s.client);
    box_accept(&s.broker, 0, ids[0]);
    assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
    end(&s);
}

//  ---- what becomes of the files ---------------------------------------------------

//  With a broker that answers at once nothing is ever written.
static void a_prompt_broker_costs_no_disk(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES];
    s.options.outbox_after_ms = 60000;
    luna_outbox_ops = &faulty_ops;
    faults_set((faults_plan){0});
    join(&s);
    open_broker(&s);
    for (uint8_t i = 0; i < 3; i++) {
        box_submit(s.client, i, id);
        box_accept(&s.broker, i, id);
        assert_ok(luna_wait_receipt(s.client, id, TAKE_MS, NULL));
    }
    end(&s);
    assert_string_equal(faults.log, "");
    luna_outbox_ops = &luna_file_ops_system;
}

static void a_refused_job_is_put_aside_with_its_reason(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES], name[256], path[320], text[64] = "";
    join(&s);
    box_keep(s.client, 1, id);
    open_broker(&s);
    const luna_id got = box_take(&s.broker, 1);
    send_receipt(&s.broker, &got, "refused", "unknown_vae");
    assert_int_equal(luna_wait_receipt(s.client, id, TAKE_MS, NULL), LUNA_RC_UNKNOWN_VAE);
    const told refused = find_notice(&s.all, "refused");
    assert_string_equal(refused.job_id, id);
    assert_non_null(strstr(refused.reason, "the reason"));
    end(&s);
    assert_int_equal(box_files("refused", name), 2);
    assert_non_null(strstr(name, id));
    snprintf(path, sizeof path, BOX "/refused/%s.reason", name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "the reason\n");
    //  Moved back by hand it is tried again.
    char to[320];
    snprintf(path, sizeof path, BOX "/refused/%s", name);
    snprintf(to, sizeof to, BOX "/jobs/%s", name);
    assert_int_equal(rename(path, to), 0);
    join(&s);
    open_broker(&s);
    box_accept(&s.broker, 1, id);
    assert_ok(luna_wait_receipt(s.client, id, TAKE_MS, NULL));
    end(&s);
}

static void damaged_files_are_put_aside_and_told(void **state)
{
    (void)state;
    scene s = begin();
    char ids[6][LUNA_JOB_ID_BYTES], name[256], path[320], other[320];
    for (uint8_t i = 0; i < 6; i++) {
        join(&s);
        box_submit(s.client, i, ids[i]);
        assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    }
    struct dirent **entries;
    assert_int_equal(scandir(BOX "/jobs", &entries, NULL, alphasort), 8);
    box_damage(entries[2]->d_name, 20);                                //  the header
    box_damage(entries[3]->d_name, LUNA_PAYLOAD_HEADER_BYTES + 3000);  //  the body
    snprintf(path, sizeof path, BOX "/jobs/%s", entries[4]->d_name);
    assert_int_equal(truncate(path, 1000), 0);
    snprintf(path, sizeof path, BOX "/jobs/%s", entries[5]->d_name);
    snprintf(other, sizeof other, BOX "/jobs/%s", entries[6]->d_name);
    assert_int_equal(rename(path, other), 0);  //  another job under its name
    for (int i = 0; i < 8; i++) free(entries[i]);
    free(entries);
    join(&s);
    open_broker(&s);
    box_accept(&s.broker, 5, ids[5]);
    assert_ok(luna_wait_receipt(s.client, ids[5], TAKE_MS, NULL));
    for (int i = 0; i < 4; i++) {
        const told lost = find_notice(&s.all, "lost");
        assert_non_null(strstr(lost.reason, BOX "/damaged/"));
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(luna_wait_receipt(s.client, ids[i], 0, NULL), LUNA_RC_IO);
    end(&s);
    assert_int_equal(box_files("damaged", name), 4);
}

static void a_file_that_is_gone_is_told(void **state)
{
    (void)state;
    scene s = begin();
    char ids[2][LUNA_JOB_ID_BYTES], name[256], path[320];
    join(&s);
    for (uint8_t i = 0; i < 2; i++) box_submit(s.client, i, ids[i]);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    join(&s);
    assert_int_equal(box_files("jobs", name), 2);
    snprintf(path, sizeof path, BOX "/jobs/%s", name);
    assert_int_equal(unlink(path), 0);
    open_broker(&s);
    box_accept(&s.broker, 1, ids[1]);
    assert_string_equal(find_notice(&s.all, "lost").job_id, ids[0]);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    end(&s);
}

static void strange_files_are_left_alone(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES];
    join(&s);
    box_submit(s.client, 1, id);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    close(open(BOX "/jobs/notes.txt", O_CREAT | O_WRONLY, 0600));
    close(open(BOX "/tmp/half-a-job", O_CREAT | O_WRONLY, 0600));
    join(&s);
    assert_int_equal(box_files("tmp", NULL), 0);
    open_broker(&s);
    box_accept(&s.broker, 1, id);
    assert_ok(luna_wait_receipt(s.client, id, TAKE_MS, NULL));
    assert_int_equal(luna_client_destroy(&s.client, TAKE_MS), 0);
    stand_in_close(&s.broker);
    assert_int_equal(box_files("jobs", NULL), 1);
}

static void a_cancelled_job_leaves_the_outbox(void **state)
{
    (void)state;
    scene s = begin();
    char ids[2][LUNA_JOB_ID_BYTES];
    join(&s);
    for (uint8_t i = 0; i < 2; i++) box_keep(s.client, i, ids[i]);
    assert_ok(luna_cancel(s.client, ids[0], TAKE_MS));
    assert_int_equal(box_files("jobs", NULL), 1);
    assert_int_equal(luna_wait_receipt(s.client, ids[0], 0, NULL), LUNA_RC_CANCELLED);
    open_broker(&s);
    box_accept(&s.broker, 1, ids[1]);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    end(&s);
}

//  ---- bounds ----------------------------------------------------------------------

static void the_disk_takes_over_when_the_memory_is_full(void **state)
{
    (void)state;
    enum { JOBS = 20 };
    scene s = begin();
    char ids[JOBS][LUNA_JOB_ID_BYTES];
    size_t jobs;
    s.options.queue_bytes = 3 * BOX_BYTES;
    join(&s);
    for (uint8_t i = 0; i < JOBS; i++) box_keep(s.client, i, ids[i]);
    luna_unsettled(s.client, &jobs, NULL);
    assert_int_equal(jobs, JOBS);
    assert_int_equal(box_files("jobs", NULL), JOBS);
    open_broker(&s);
    for (uint8_t i = 0; i < JOBS; i++) box_accept(&s.broker, i, ids[i]);
    assert_ok(luna_wait_receipt(s.client, ids[JOBS - 1], TAKE_MS, NULL));
    end(&s);
}

//  The same from a former process, and nobody answers before the last one is there: the
//  window needs more memory than there is.
static void a_full_memory_does_not_stop_the_queue(void **state)
{
    (void)state;
    enum { JOBS = 8 };
    scene s = begin();
    char ids[JOBS][LUNA_JOB_ID_BYTES];
    join(&s);
    for (uint8_t i = 0; i < JOBS; i++) box_submit(s.client, i, ids[i]);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    s.options.queue_bytes = BOX_BYTES / 2;  //  no job fits
    join(&s);
    open_broker(&s);
    for (uint8_t i = 0; i < JOBS; i++) {
        box_accept(&s.broker, i, ids[i]);
        assert_ok(luna_wait_receipt(s.client, ids[i], TAKE_MS, NULL));
    }
    end(&s);
}

static void a_full_outbox_costs_durability_only(void **state)
{
    (void)state;
    scene s = begin();
    char ids[4][LUNA_JOB_ID_BYTES], more[LUNA_JOB_ID_BYTES];
    s.options.outbox_bytes = 2 * (BOX_BYTES + 4096);
    s.options.queue_bytes = 3 * BOX_BYTES;
    join(&s);
    for (uint8_t i = 0; i < 2; i++) box_keep(s.client, i, ids[i]);
    for (uint8_t i = 2; i < 4; i++) box_submit(s.client, i, ids[i]);
    assert_non_null(strstr(find_notice(&s.all, "outbox_failed").reason, "full"));
    const luna_submission job = submission_of(box_latent, sizeof box_latent);
    assert_int_equal(luna_submit(s.client, &job, more), LUNA_RC_BUSY);
    assert_int_equal(box_files("jobs", NULL), 2);
    assert_int_equal(luna_wait_kept(s.client, ids[3], 0), LUNA_RC_UNAVAILABLE);
    open_broker(&s);
    for (uint8_t i = 0; i < 4; i++) box_accept(&s.broker, i, ids[i]);
    assert_ok(luna_wait_receipt(s.client, ids[3], TAKE_MS, NULL));
    end(&s);
}

static void what_does_not_fit_is_counted_as_lost(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES];
    s.options.outbox_bytes = 2 * (BOX_BYTES + 4096);
    join(&s);
    for (uint8_t i = 0; i < 5; i++) box_submit(s.client, i, id);
    assert_int_equal(luna_client_destroy(&s.client, 0), 3);
    assert_int_equal(box_files("jobs", NULL), 2);
    assert_int_equal(box_files("tmp", NULL), 0);
}

//  ---- a disk that fails -----------------------------------------------------------

static void a_failing_disk_costs_durability_only(void **state)
{
    (void)state;
    const int codes[] = {EIO, ENOSPC};
    for (int i = 0; i < 2; i++) {
        scene s = begin();
        char ids[2][LUNA_JOB_ID_BYTES];
        luna_outbox_ops = &faulty_ops;
        faults_set((faults_plan){.at = 1, .code = codes[i], .from = true, .only = "s"});
        join(&s);
        box_submit(s.client, 0, ids[0]);
        find_notice(&s.all, "outbox_failed");
        assert_int_equal(luna_wait_kept(s.client, ids[0], 0), LUNA_RC_UNAVAILABLE);
        assert_int_equal(box_files("jobs", NULL), 0);
        assert_int_equal(box_files("tmp", NULL), 0);
        faults_set((faults_plan){0});
        assert_ok(luna_wait_kept(s.client, ids[0], TAKE_MS));
        find_notice(&s.all, "outbox_works");
        open_broker(&s);
        box_accept(&s.broker, 0, ids[0]);
        assert_ok(luna_wait_receipt(s.client, ids[0], TAKE_MS, NULL));
        end(&s);
        luna_outbox_ops = &luna_file_ops_system;
    }
}

//  It was kept, and the disk has lost it: the others go on.
static void a_file_that_cannot_be_read_is_told(void **state)
{
    (void)state;
    scene s = begin();
    char ids[2][LUNA_JOB_ID_BYTES];
    join(&s);
    for (uint8_t i = 0; i < 2; i++) box_submit(s.client, i, ids[i]);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    luna_outbox_ops = &faulty_ops;
    faults_set((faults_plan){.at = 1, .code = EIO, .only = "g"});
    join(&s);
    open_broker(&s);
    box_accept(&s.broker, 1, ids[1]);
    assert_string_equal(find_notice(&s.all, "lost").job_id, ids[0]);
    assert_ok(luna_wait_receipt(s.client, ids[1], TAKE_MS, NULL));
    assert_int_equal(luna_wait_receipt(s.client, ids[0], 0, NULL), LUNA_RC_IO);
    end(&s);
    assert_int_equal(box_files("damaged", NULL), 1);
    luna_outbox_ops = &luna_file_ops_system;
}

//  The order of the steps is the guarantee: bytes, sync, name, sync of the folder.
static void a_job_is_synced_before_and_after_its_name(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES];
    luna_outbox_ops = &faulty_ops;
    faults_set((faults_plan){0});
    join(&s);
    box_keep(s.client, 1, id);
    assert_string_equal(faults.log, "awwsrd");
    open_broker(&s);
    box_accept(&s.broker, 1, id);
    assert_ok(luna_wait_receipt(s.client, id, TAKE_MS, NULL));
    end(&s);
    assert_string_equal(faults.log, "awwsrduddd");
    luna_outbox_ops = &luna_file_ops_system;
}

//  ---- whose folder ----------------------------------------------------------------

static void a_folder_has_one_owner(void **state)
{
    (void)state;
    scene s = begin();
    luna_client *second = NULL;
    char pid[32];
    join(&s);
    assert_int_equal(luna_client_new(s.broker.control_at, &s.options, &second),
                     LUNA_RC_BUSY);
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(luna_last_error(), pid));
    assert_null(second);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
    join(&s);
    assert_int_equal(luna_client_destroy(&s.client, 0), 0);
}

static void a_folder_that_cannot_be_made_is_told_at_once(void **state)
{
    (void)state;
    scene s = begin();
    close(open("file", O_CREAT | O_WRONLY, 0600));
    s.options.outbox_dir = "file/box";
    assert_int_equal(luna_client_new(s.broker.control_at, &s.options, &s.client),
                     LUNA_RC_CANT_CREATE);
    s.options.outbox_dir = BOX;
    s.options.outbox_after_ms = -1;
    assert_int_equal(luna_client_new(s.broker.control_at, &s.options, &s.client),
                     LUNA_RC_CONFIG);
    unlink("file");
}

static void the_environment_may_name_the_outbox(void **state)
{
    (void)state;
    scene first = begin(), second = begin(), third = begin();
    char id[LUNA_JOB_ID_BYTES];
    setenv("LUNA_OUTBOX", BOX, 1);
    first.options.outbox_dir = second.options.outbox_dir = NULL;
    third.options.outbox_dir = "";
    join(&first);
    box_keep(first.client, 1, id);
    assert_int_equal(box_files("jobs", NULL), 1);
    //  In use is no reason to fail when nobody asked for it; but it is told.
    join(&second);
    assert_non_null(strstr(find_notice(&second.all, "outbox_failed").reason, "in use"));
    box_submit(second.client, 2, id);
    join(&third);
    box_submit(third.client, 3, id);
    assert_int_equal(luna_client_destroy(&third.client, 0), 1);
    assert_int_equal(luna_client_destroy(&second.client, 0), 1);
    assert_int_equal(luna_client_destroy(&first.client, 0), 0);
    assert_int_equal(box_files("jobs", NULL), 1);
    unsetenv("LUNA_OUTBOX");
}

//  It would linger for an hour for a broker that might come.
static void nobody_lingers_for_a_broker_that_is_away(void **state)
{
    (void)state;
    scene s = begin();
    char id[LUNA_JOB_ID_BYTES];
    s.options.outbox_after_ms = 3600000;
    join(&s);
    for (uint8_t i = 0; i < 3; i++) box_submit(s.client, i, id);
    assert_int_equal(luna_client_destroy(&s.client, 3600000), 0);
    assert_int_equal(box_files("jobs", NULL), 3);
    find_notice(&s.all, "outbox");
}

#define TEST(name) cmocka_unit_test_teardown(name, box_clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_next_client_sends_what_is_left),
        TEST(a_job_is_the_same_whoever_sends_it),
        TEST(a_killed_process_loses_nothing_it_has_kept),
        TEST(an_id_in_the_outbox_is_taken),
        TEST(jobs_of_another_identity_wait_for_their_turn),
        TEST(a_prompt_broker_costs_no_disk),
        TEST(a_refused_job_is_put_aside_with_its_reason),
        TEST(damaged_files_are_put_aside_and_told),
        TEST(a_file_that_is_gone_is_told),
        TEST(strange_files_are_left_alone),
        TEST(a_cancelled_job_leaves_the_outbox),
        TEST(the_disk_takes_over_when_the_memory_is_full),
        TEST(a_full_memory_does_not_stop_the_queue),
        TEST(a_full_outbox_costs_durability_only),
        TEST(what_does_not_fit_is_counted_as_lost),
        TEST(a_failing_disk_costs_durability_only),
        TEST(a_file_that_cannot_be_read_is_told),
        TEST(a_job_is_synced_before_and_after_its_name),
        TEST(a_folder_has_one_owner),
        TEST(a_folder_that_cannot_be_made_is_told_at_once),
        TEST(the_environment_may_name_the_outbox),
        TEST(nobody_lingers_for_a_broker_that_is_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
