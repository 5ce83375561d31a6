//  Engines in memory: what a load may take, who waits for whom, and what is left of a
//  load that failed or that nobody wants any more.
//
//  Loads are held at a gate: options.step, which the loading thread calls while it reads
//  weights, blocks there.

#include "gate.h"
#include "kit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/file.h"
#include "decoder/worker/models.h"

#define BYTES (4 * (uint64_t)1338499)  //  of one model: 1338499 parameters

typedef struct rig {
    luna_models *models;
    luna_registry *registry;
    gate gate;
    gate ended;  //  always open: counts the loads that ended
} rig;

static void at_gate(void *context)
{
    rig *self = context;
    gate_pass(&self->gate);
}

static void ended(void *context)
{
    rig *self = context;
    gate_pass(&self->ended);
}

//  Three names of copies of one small model: a, b, c. Their times differ for certain.
static void make_models(rig *self)
{
    static const char *const names[] = {"a", "b", "c"};
    char *file, path[4096];
    size_t len;
    FILE *out;
    assert_int_equal(luna_file_read(data_path("taef2_decoder.safetensors", path), 1 << 26,
                                    &file, &len),
                     LUNA_OK);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s.safetensors", names[i]);
        out = fopen(path, "w");
        assert_int_equal(fwrite(file, 1, len, out), len);
        fclose(out);
        const struct timespec times[2] = {{0, UTIME_OMIT}, {1000000000 + (time_t)i, 0}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
        assert_int_equal(luna_registry_set(self->registry, names[i], "path", path),
                         LUNA_OK);
    }
    free(file);
}

static void start(rig *self, size_t count_max, uint64_t bytes_max)
{
    const luna_models_options options = {.device = "cpu",
                                         .threads = 1,
                                         .count_max = count_max,
                                         .bytes_max = bytes_max,
                                         .step = at_gate,
                                         .loaded = ended,
                                         .context = self};
    assert_int_equal(luna_models_new(&options, &self->models), LUNA_OK);
}

static int setup(void **state)
{
    rig *self = calloc(1, sizeof *self);
    assert_non_null(self);
    gate_init(&self->gate);
    gate_init(&self->ended);
    self->registry = luna_registry_new();
    make_models(self);
    *state = self;
    return 0;
}

static int teardown(void **state)
{
    rig *self = *state;
    gate_set(&self->gate, false);
    luna_models_free(&self->models);
    luna_registry_free(&self->registry);
    remove("a.safetensors");
    remove("b.safetensors");
    remove("c.safetensors");
    gate_destroy(&self->gate);
    gate_destroy(&self->ended);
    free(self);
    return 0;
}

static luna_engine *ask(rig *self, size_t index)
{
    luna_engine *engine = NULL;
    assert_int_equal(
        luna_models_ask(self->models, luna_registry_at(self->registry, index), &engine),
        LUNA_OK);
    return engine;
}

//  Asks and waits until it is ready; the gate is open.
static luna_engine *get(rig *self, size_t index)
{
    const size_t before = gate_came(&self->ended);
    luna_engine *engine = ask(self, index);
    if (luna_engine_is_loading(engine)) gate_wait_came(&self->ended, before + 1);
    assert_int_equal(luna_engine_result(engine), LUNA_OK);
    assert_non_null(luna_engine_vae(engine));
    return engine;
}

//  Whether it is in memory; asking is using it.
static bool is_loaded(rig *self, size_t index)
{
    luna_engine *engine = ask(self, index);
    const bool loaded = luna_engine_result(engine) == LUNA_OK;
    luna_engine_release(&engine);
    return loaded;
}

static void one_is_used_while_another_loads(void **state)
{
    rig *self = *state;
    start(self, 2, UINT64_MAX);
    luna_engine *a = get(self, 0);
    gate_set(&self->gate, true);
    luna_engine *b = ask(self, 1), *again = ask(self, 1);
    gate_wait_held(&self->gate);
    assert_ptr_equal(b, again);
    assert_true(luna_engine_is_loading(b));
    assert_int_equal(luna_engine_result(b), LUNA_BUSY);
    assert_int_equal(luna_engine_result(a), LUNA_OK);
    luna_engine_release(&a);
    a = get(self, 0);
    gate_set(&self->gate, false);
    gate_wait_came(&self->ended, 2);
    assert_int_equal(luna_engine_result(b), LUNA_OK);
    assert_string_equal(strrchr(luna_engine_file(b)->path, '/'), "/b.safetensors");
    luna_engine_release(&a);
    luna_engine_release(&b);
    luna_engine_release(&again);
    assert_null(again);
}

//  Of two places one is free again before the third model is read.
static void room_is_made_before_a_load(void **state)
{
    rig *self = *state;
    start(self, 3, 2 * BYTES);
    luna_engine *a = get(self, 0), *b = get(self, 1);
    luna_engine_release(&a);
    luna_engine_release(&b);
    gate_set(&self->gate, true);
    luna_engine *c = ask(self, 2);
    gate_wait_held(&self->gate);
    assert_true(is_loaded(self, 1));
    luna_engine *again = ask(self, 0);  //  it was used longest ago
    assert_true(luna_engine_is_loading(again));
    luna_engine_release(&again);
    gate_set(&self->gate, false);
    gate_wait_came(&self->ended, 3);
    assert_int_equal(luna_engine_result(c), LUNA_OK);
    luna_engine_release(&c);
}

//  Both places are held: the load begins when one is released, which is closed though it
//  could have been used again.
static void a_load_waits_for_what_is_held(void **state)
{
    rig *self = *state;
    start(self, 1, UINT64_MAX);
    luna_engine *a = get(self, 0), *b = ask(self, 1);
    //  Whether it has come as far as to wait or not: it cannot be read yet.
    for (int i = 0; i < 50; i++) {
        assert_int_equal(luna_engine_result(b), LUNA_BUSY);
        usleep(1000);
    }
    luna_engine_release(&a);
    gate_wait_came(&self->ended, 2);
    assert_int_equal(luna_engine_result(b), LUNA_OK);
    a = ask(self, 0);
    assert_true(luna_engine_is_loading(a));
    luna_engine_release(&b);
    gate_wait_came(&self->ended, 3);
    assert_int_equal(luna_engine_result(a), LUNA_OK);
    luna_engine_release(&a);
}

static void a_model_over_the_limits_is_let_in_alone(void **state)
{
    rig *self = *state;
    start(self, 2, 1);
    luna_engine *a = get(self, 0);
    luna_engine_release(&a);
    assert_true(is_loaded(self, 0));
    luna_engine *b = get(self, 1);
    assert_false(is_loaded(self, 0));
    luna_engine_release(&b);
}

static void a_file_that_is_no_model_is_told(void **state)
{
    rig *self = *state;
    start(self, 2, UINT64_MAX);
    assert_int_equal(truncate("a.safetensors", 1000), 0);
    luna_engine *a = ask(self, 0);
    gate_wait_came(&self->ended, 1);
    assert_int_equal(luna_engine_result(a), LUNA_BAD_MODEL);
    assert_non_null(strstr(luna_error_text(), "a.safetensors"));
    luna_engine_release(&a);
}

//  The bytes that were read and the name they are known by would not belong together.
static void a_failure_is_told_to_all_and_not_kept(void **state)
{
    rig *self = *state;
    start(self, 2, UINT64_MAX);
    gate_set(&self->gate, true);
    luna_engine *a = ask(self, 0), *again = ask(self, 0);
    gate_wait_held(&self->gate);
    assert_int_equal(rename("b.safetensors", "a.safetensors"), 0);
    gate_set(&self->gate, false);
    gate_wait_came(&self->ended, 1);
    assert_int_equal(luna_engine_result(a), LUNA_IO);
    assert_non_null(strstr(luna_error_text(), "was changed while it was loaded"));
    assert_int_equal(luna_engine_result(again), LUNA_IO);
    luna_engine_release(&again);
    luna_engine *fresh = get(self, 0);
    assert_ptr_not_equal(a, fresh);
    luna_engine_release(&a);
    luna_engine_release(&fresh);
}

static void what_nobody_waits_for_is_given_up(void **state)
{
    rig *self = *state;
    start(self, 2, UINT64_MAX);
    gate_set(&self->gate, true);
    luna_engine *a = ask(self, 0), *b = ask(self, 1);
    gate_wait_held(&self->gate);
    luna_engine_release(&a);  //  is being read
    luna_engine_release(&b);  //  waits for its turn
    gate_set(&self->gate, false);
    gate_wait_came(&self->ended, 1);
    luna_engine *c = get(self, 2);
    luna_engine_release(&c);
    assert_int_equal(gate_came(&self->ended), 2);
    assert_false(is_loaded(self, 1));
}

//  Somebody comes back before the load has noticed.
static void a_load_that_is_wanted_again_is_made(void **state)
{
    rig *self = *state;
    start(self, 2, UINT64_MAX);
    gate_set(&self->gate, true);
    luna_engine *a = ask(self, 0);
    gate_wait_held(&self->gate);
    luna_engine_release(&a);
    a = ask(self, 0);
    gate_set(&self->gate, false);
    gate_wait_came(&self->ended, 1);
    assert_int_equal(luna_engine_result(a), LUNA_OK);
    luna_engine_release(&a);
}

static void a_replaced_file_is_loaded_anew(void **state)
{
    rig *self = *state;
    start(self, 2, UINT64_MAX);
    luna_engine *old = get(self, 0);
    assert_int_equal(rename("b.safetensors", "a.safetensors"), 0);
    luna_engine *fresh = get(self, 0);
    assert_ptr_not_equal(old, fresh);
    assert_int_not_equal(luna_engine_file(old)->inode, luna_engine_file(fresh)->inode);
    luna_engine_release(&old);
    luna_engine_release(&fresh);
}

static void absent_files_are_told_at_once(void **state)
{
    rig *self = *state;
    luna_engine *engine = NULL;
    start(self, 2, UINT64_MAX);
    remove("a.safetensors");
    assert_int_equal(
        luna_models_ask(self->models, luna_registry_at(self->registry, 0), &engine),
        LUNA_NOT_FOUND);
    assert_null(engine);
}

//  The end does not wait for a load: the gate opens once, and nothing more is read.
static void *free_models(void *context)
{
    rig *self = context;
    luna_models_free(&self->models);
    return NULL;
}

static void the_end_gives_a_load_up(void **state)
{
    rig *self = *state;
    pthread_t thread;
    start(self, 2, UINT64_MAX);
    gate_set(&self->gate, true);
    luna_engine *a = ask(self, 0), *b = ask(self, 1);
    gate_wait_held(&self->gate);
    luna_engine_release(&a);
    luna_engine_release(&b);
    assert_int_equal(pthread_create(&thread, NULL, free_models, self), 0);
    gate_set(&self->gate, false);
    pthread_join(thread, NULL);
    assert_null(self->models);
    assert_int_equal(gate_came(&self->ended), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(one_is_used_while_another_loads),
                                       T(room_is_made_before_a_load),
                                       T(a_load_waits_for_what_is_held),
                                       T(a_model_over_the_limits_is_let_in_alone),
                                       T(a_failure_is_told_to_all_and_not_kept),
                                       T(what_nobody_waits_for_is_given_up),
                                       T(a_load_that_is_wanted_again_is_made),
                                       T(a_replaced_file_is_loaded_anew),
                                       T(a_file_that_is_no_model_is_told),
                                       T(absent_files_are_told_at_once),
                                       T(the_end_gives_a_load_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
