//  The hash of a VAE's file: computed once for each version of it, told to attempts that
//  wait, and kept on the disk beside whatever else may stand there.
//
//  Reading is held at a gate, options.step.

#include "gate.h"
#include "kit.h"

#include <sys/stat.h>

#include "common/file.h"
#include "decoder/sink/sha256.h"
#include "decoder/worker/hashes.h"

#define CACHE "cache/below/vae-sha256"

typedef struct rig {
    luna_hashes *hashes;
    luna_attempts *attempts;
    gate gate;
    char file[4096];
    char expected[LUNA_SINK_SHA256_BYTES];
    uint8_t next_id;
} rig;

static void at_gate(void *context)
{
    rig *self = context;
    gate_pass(&self->gate);
}

static void start_waiting(rig *self, int64_t wait_ms)
{
    const luna_hashes_options options = {
        .cache = CACHE, .wait_ms = wait_ms, .step = at_gate, .context = self};
    assert_int_equal(luna_hashes_start(&options, &self->hashes), LUNA_OK);
}

static void start(rig *self)
{
    start_waiting(self, DEADLINE_MS);
}

static void write_file(rig *self, const char *text)
{
    FILE *file = fopen("model.new", "w");
    assert_true(fputs(text, file) >= 0);
    fclose(file);
    assert_int_equal(rename("model.new", "model"), 0);
    assert_int_equal(luna_sha256(text, strlen(text), self->expected), LUNA_OK);
}

static int setup(void **state)
{
    rig *self = calloc(1, sizeof *self);
    gate_init(&self->gate);
    assert_int_equal(luna_attempts_new(&self->attempts), LUNA_OK);
    assert_int_equal(luna_path_absolute("model", self->file, sizeof self->file), LUNA_OK);
    write_file(self, "a model");
    start(self);
    *state = self;
    return 0;
}

static int teardown(void **state)
{
    rig *self = *state;
    gate_set(&self->gate, false);
    luna_hashes_stop(&self->hashes);
    luna_attempts_free(&self->attempts);
    gate_destroy(&self->gate);
    remove_tree("cache");
    remove("model");
    free(self);
    return 0;
}

static luna_file_key key_now(const rig *self)
{
    luna_file_key key;
    assert_int_equal(luna_file_key_of(self->file, &key), LUNA_OK);
    return key;
}

//  An attempt without images is whole, and ends with its last holder.
static luna_attempt *running(rig *self)
{
    luna_parking *parking = NULL;
    const luna_msg_work fields = work_fields(id_of(++self->next_id), 1);
    luna_work *work = open_work(&fields);
    assert_int_equal(luna_attempts_add(self->attempts, &work, 0), LUNA_OK);
    luna_attempt *attempt = luna_attempts_take(self->attempts, &parking);
    assert_int_equal(luna_attempt_expect(attempt, 0), LUNA_OK);
    assert_int_equal(luna_attempt_vae(attempt, "ae", self->file), LUNA_OK);
    return attempt;
}

//  As the decode thread does when it is done with an attempt.
static void tell(rig *self, const luna_file_key *key)
{
    luna_attempt *attempt = running(self);
    luna_hashes_tell(self->hashes, key, attempt);
    luna_attempt_release(&attempt);
}

static void expect_done(rig *self, const char *sha256)
{
    report told = wait_for_end(self->attempts, NULL);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_true(luna_text_is(told.done.vae, "ae"));
    assert_true(luna_text_is(told.done.vae_path, self->file));
    assert_int_equal(told.done.vae_sha256.len, sha256 ? 64 : 0);
    if (sha256) assert_memory_equal(told.done.vae_sha256.data, sha256, 64);
    close_report(&told);
}

static void an_attempt_waits_for_the_hash(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    gate_set(&self->gate, true);
    luna_hashes_begin(self->hashes, &key);
    gate_wait_held(&self->gate);
    tell(self, &key);
    tell(self, &key);
    assert_int_equal(luna_attempts_count(self->attempts).running, 2);
    assert_int_equal(luna_attempts_count(self->attempts).untold, 0);
    gate_set(&self->gate, false);
    expect_done(self, self->expected);
    expect_done(self, self->expected);
    assert_int_equal(luna_attempts_count(self->attempts).running, 0);
}

static void a_file_is_read_once(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    tell(self, &key);
    expect_done(self, self->expected);
    const size_t reads = gate_came(&self->gate);
    assert_int_equal(reads, 1);
    tell(self, &key);
    expect_done(self, self->expected);
    luna_hashes_stop(&self->hashes);
    start(self);
    tell(self, &key);
    expect_done(self, self->expected);
    assert_int_equal(gate_came(&self->gate), reads);
}

//  The job ends without the hash, which those after it have.
static void an_attempt_waits_so_long_only(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    luna_hashes_stop(&self->hashes);
    start_waiting(self, 0);
    gate_set(&self->gate, true);
    tell(self, &key);
    gate_wait_held(&self->gate);
    assert_int_equal(luna_attempts_count(self->attempts).running, 1);
    gate_set(&self->gate, false);
    expect_done(self, NULL);
    while (luna_attempts_count(self->attempts).running == 0) {
        tell(self, &key);
        report told = wait_for_end(self->attempts, NULL);
        const size_t len = told.done.vae_sha256.len;
        close_report(&told);
        if (len == 64) break;
    }
}

static void another_version_is_another_file(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    char old[LUNA_SINK_SHA256_BYTES];
    tell(self, &key);
    expect_done(self, self->expected);
    memcpy(old, self->expected, sizeof old);
    write_file(self, "A MODEL");
    key = key_now(self);
    tell(self, &key);
    expect_done(self, self->expected);
    assert_string_not_equal(old, self->expected);
    luna_hashes_stop(&self->hashes);
    start(self);
    const size_t reads = gate_came(&self->gate);
    tell(self, &key);
    expect_done(self, self->expected);
    assert_int_equal(gate_came(&self->gate), reads);
}

//  The version that decoded is gone: its hash cannot be told, and no other one is.
static void a_version_that_is_gone_has_no_hash(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    write_file(self, "another");
    tell(self, &key);
    expect_done(self, NULL);
    remove("model");
    key.bytes++;
    tell(self, &key);
    expect_done(self, NULL);
}

static void one_that_changes_while_it_is_read_has_no_hash(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    gate_set(&self->gate, true);
    tell(self, &key);
    gate_wait_held(&self->gate);
    FILE *file = fopen("model", "a");
    fputs("more", file);
    fclose(file);
    gate_set(&self->gate, false);
    expect_done(self, NULL);
}

static void *stop_hashes(void *context)
{
    rig *self = context;
    luna_hashes_stop(&self->hashes);
    return NULL;
}

//  Its attempts end, and as done: every picture of theirs is there.
static void a_stop_does_not_wait(void **state)
{
    rig *self = *state;
    pthread_t thread;
    luna_file_key key = key_now(self);
    gate_set(&self->gate, true);
    tell(self, &key);
    gate_wait_held(&self->gate);
    luna_attempts_stop(self->attempts);
    assert_int_equal(pthread_create(&thread, NULL, stop_hashes, self), 0);
    gate_set(&self->gate, false);
    pthread_join(thread, NULL);
    assert_null(self->hashes);
    report told = wait_for_end(self->attempts, NULL);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    close_report(&told);
}

//  Lines that are none, of another file, too short, cut; then a good one that counts
//  although an older one for the path came before.
static void the_cache_may_hold_anything(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    static const char digits[] =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    luna_hashes_stop(&self->hashes);
    assert_int_equal(luna_make_dirs("cache/below", 0700), LUNA_OK);
    FILE *file = fopen(CACHE, "w");
    fprintf(file, "\n \nnothing\n%.63s 1 2 3 /x\n%s\n%s 1\n%s x y z /x\n%s 1 2 3 x\n",
            digits, digits, digits, digits, digits);
    fprintf(file, "%s %llu %lld %llu %s\n", digits, (unsigned long long)key.bytes + 1,
            (long long)key.changed_ns, (unsigned long long)key.inode, self->file);
    fprintf(file, "%s %llu %lld %llu %s\n", digits, (unsigned long long)key.bytes,
            (long long)key.changed_ns, (unsigned long long)key.inode, self->file);
    fprintf(file, "%s %llu %lld %llu %s", self->expected, (unsigned long long)key.bytes,
            (long long)key.changed_ns, (unsigned long long)key.inode, self->file);
    fclose(file);
    start(self);
    tell(self, &key);
    expect_done(self, digits);
    assert_int_equal(gate_came(&self->gate), 0);
}

static void a_cache_that_cannot_be_is_done_without(void **state)
{
    rig *self = *state;
    luna_file_key key = key_now(self);
    luna_hashes_stop(&self->hashes);
    FILE *file = fopen("cache", "w");
    fclose(file);
    start(self);
    tell(self, &key);
    expect_done(self, self->expected);
    tell(self, &key);
    expect_done(self, self->expected);
    assert_int_equal(gate_came(&self->gate), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(an_attempt_waits_for_the_hash),
                                       T(a_file_is_read_once),
                                       T(an_attempt_waits_so_long_only),
                                       T(another_version_is_another_file),
                                       T(a_version_that_is_gone_has_no_hash),
                                       T(one_that_changes_while_it_is_read_has_no_hash),
                                       T(a_stop_does_not_wait),
                                       T(the_cache_may_hold_anything),
                                       T(a_cache_that_cannot_be_is_done_without)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
