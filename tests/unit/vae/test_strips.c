//  A picture is the same to the bit however it is cut up: by any number of threads, whole
//  in memory, or in bands with most of its values in a temporary file.

#include "vae/vae_test.h"

#if LUNA_VAE_CPU
#include "decoder/vae/cpu/cpu.h"

#include <dirent.h>
#include <unistd.h>

enum { CHANNELS = 4, HEIGHT = 11, WIDTH = 23 };
#define PIXELS ((size_t)3 * HEIGHT * 8 * WIDTH * 8)

static float latent_values[CHANNELS * HEIGHT * WIDTH];

static luna_vae_latents latents_of_test(void)
{
    return (luna_vae_latents){.data = latent_values,
                              .dtype = LUNA_DTYPE_F32,
                              .count = 1,
                              .channels = CHANNELS,
                              .height = HEIGHT,
                              .width = WIDTH};
}

static luna_vae *open_kl(int threads, size_t limit_bytes)
{
    luna_vae *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.device = "cpu";
    options.threads = threads;
    options.memory_limit_bytes = limit_bytes;
    if (luna_vae_open(data_path("kl_small_z4.safetensors"), &options, &vae) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return vae;
}

static luna_err decode(luna_vae *vae, float *pixels)
{
    const luna_vae_latents latents = latents_of_test();
    const luna_vae_target target = {.data = pixels,
                                    .bytes = PIXELS * sizeof *pixels,
                                    .format = LUNA_PIXELS_F32_PLANAR,
                                    .rule = LUNA_PIXELS_RAW};
    return luna_vae_decode(vae, &latents, 0, 1, &target);
}

//  Decodes with so many threads and bytes; sets *peak_bytes.
static float *decoded(int threads, size_t limit_bytes, size_t *peak_bytes)
{
    luna_vae_cost cost;
    luna_vae *vae = open_kl(threads, limit_bytes);
    const luna_vae_latents latents = latents_of_test();
    float *pixels = malloc(PIXELS * sizeof *pixels);
    assert_non_null(pixels);
    if (luna_vae_prepare(vae, &latents, &cost) != LUNA_OK ||
        decode(vae, pixels) != LUNA_OK)
        fail_msg("%d threads, %zu bytes: %s", threads, limit_bytes, luna_error_text());
    *peak_bytes = cost.peak_bytes;
    luna_vae_close(&vae);
    return pixels;
}

static void expect_same(const float *whole, int threads, size_t limit_bytes)
{
    size_t peak_bytes;
    float *pixels = decoded(threads, limit_bytes, &peak_bytes);
    assert_memory_equal(pixels, whole, PIXELS * sizeof *pixels);
    if (limit_bytes) assert_true(peak_bytes <= limit_bytes);
    free(pixels);
}

static void any_number_of_threads(void **state)
{
    const float *whole = *state;
    expect_same(whole, 1, 0);
    expect_same(whole, 2, 0);
    expect_same(whole, 7, 0);
}

//  Down to an eighth of what the whole takes, most of it packed weights at first.
static void any_amount_of_memory(void **state)
{
    size_t peak_bytes;
    const float *whole = *state;
    free(decoded(2, 0, &peak_bytes));
    for (size_t part = 2; part <= 8; part *= 2)
        for (int threads = 1; threads <= 3; threads += 2)
            expect_same(whole, threads, peak_bytes / part);
}

static void a_limit_that_is_too_low_is_told(void **state)
{
    (void)state;
    luna_vae_cost cost;
    luna_vae *vae = open_kl(1, 1 << 20);
    const luna_vae_latents latents = latents_of_test();
    assert_int_equal(luna_vae_prepare(vae, &latents, &cost), LUNA_NO_MEMORY);
    assert_non_null(strstr(luna_error_text(), "the limit is 1048576"));
    luna_vae_close(&vae);
}

//  Without a place for the file the decode fails, says where it looked, and leaves an
//  engine that decodes when there is one.
static void no_room_for_the_file(void **state)
{
    size_t peak_bytes;
    free(decoded(1, 0, &peak_bytes));
    luna_vae *vae = open_kl(1, peak_bytes / 8);
    float *pixels = malloc(PIXELS * sizeof *pixels);
    assert_non_null(pixels);
    setenv("TMPDIR", "/there/is/no/such/folder", 1);
    assert_int_equal(decode(vae, pixels), LUNA_NO_MEMORY);
    assert_non_null(strstr(luna_error_text(), "/there/is/no/such/folder"));
    unsetenv("TMPDIR");
    assert_int_equal(decode(vae, pixels), LUNA_OK);
    assert_memory_equal(pixels, *state, PIXELS * sizeof *pixels);
    luna_vae_close(&vae);
    free(pixels);
}

static size_t entries_of(const char *folder)
{
    size_t count = 0;
    DIR *open = opendir(folder);
    assert_non_null(open);
    while (readdir(open)) count++;
    closedir(open);
    return count;
}

static void the_file_leaves_nothing_behind(void **state)
{
    size_t peak_bytes;
    char folder[] = "/tmp/luna-strips-XXXXXX";
    assert_non_null(mkdtemp(folder));
    setenv("TMPDIR", folder, 1);
    free(decoded(1, 0, &peak_bytes));
    expect_same(*state, 2, peak_bytes / 8);
    unsetenv("TMPDIR");
    assert_int_equal(entries_of(folder), 2);  //  . and ..
    assert_int_equal(rmdir(folder), 0);
}

//  ---- operators across bands ------------------------------------------------------

//  A graph of one operator, and its weights.
typedef struct bed {
    luna_graph graph;
    luna_weights weights;
    float *values[4];
} bed;

static int add_node(bed *b, luna_op op, int input, size_t channels)
{
    b->graph.node[b->graph.count] = (luna_node){.op = op,
                                                .input = {input, LUNA_NONE, LUNA_NONE},
                                                .weight = LUNA_NONE,
                                                .bias = LUNA_NONE,
                                                .channels = channels};
    return (int)b->graph.count++;
}

static int add_weight(bed *b, size_t count)
{
    static uint64_t seed = 9;
    const size_t i = b->weights.count++;
    b->values[i] = random_floats(&seed, count);
    b->weights.item[i] = (luna_weight){
        .name = "w", .dtype = LUNA_DTYPE_F32, .data = b->values[i], .count = count};
    return (int)i;
}

static int add_conv(bed *b, int input, size_t channels)
{
    const size_t from = b->graph.node[input].channels;
    const int node = add_node(b, LUNA_OP_CONV2D, input, channels);
    b->graph.node[node].kernel = 3;
    b->graph.node[node].weight = add_weight(b, channels * from * 9);
    return node;
}

static bed *new_bed(size_t channels)
{
    bed *b = calloc(1, sizeof *b);
    assert_non_null(b);
    add_node(b, LUNA_OP_INPUT, LUNA_NONE, channels);
    return b;
}

static float *run(const luna_backend *backend, const cpu_kernels *kernels, const bed *b,
                  const luna_shape *shapes, const float *input, size_t limit_bytes)
{
    void *state = NULL;
    luna_plan *plan = NULL;
    luna_vae_cost cost;
    const luna_backend_options options = {.weights = &b->weights, .threads = 3};
    const luna_plan_request request = {
        .graph = &b->graph, .shapes = shapes, .memory_limit_bytes = limit_bytes};
    float *out = malloc(shapes[b->graph.count - 1].count * sizeof *out);
    assert_non_null(out);
    assert_int_equal(backend->open(&options, &state), LUNA_OK);
    if (kernels) {
        cpu_state *cpu = state;
        cpu->kernels = cpu->weights.kernels = kernels;
    }
    if (backend->compile(state, &request, &plan, &cost) != LUNA_OK ||
        backend->run(state, plan, input, out) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    backend->free_plan(state, plan);
    backend->close(state);
    return out;
}

static void expect_close(const float *a, const float *b, size_t count, const char *what)
{
    double largest = 1.0;
    for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)b[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - b[i]) <= 5e-5 * largest))
            fail_msg("%s: value %zu is %.9g, not %.9g", what, i, (double)a[i],
                     (double)b[i]);
}

//  On every instruction set: whole, as the plain C backend has it; in bands, the same
//  bits.
static void check(bed *b, size_t height, size_t width, size_t limit_bytes)
{
    static const char *const names[] = {"plain", "AVX2", "AVX-512"};
    static uint64_t seed = 5;
    luna_shape shapes[LUNA_GRAPH_MAX];
    assert_int_equal(luna_graph_infer(&b->graph, height, width, shapes), LUNA_OK);
    const size_t count = shapes[b->graph.count - 1].count;
    float *input = random_floats(&seed, shapes[0].count);
    float *wanted = run(&luna_backend_reference, NULL, b, shapes, input, 0);
    for (int i = 0; i < 3; i++) {
        const cpu_kernels *kernels = cpu_kernels_find(names[i]);
        if (!kernels) continue;
        float *whole = run(&luna_backend_cpu, kernels, b, shapes, input, 0);
        float *bands = run(&luna_backend_cpu, kernels, b, shapes, input, limit_bytes);
        expect_close(whole, wanted, count, names[i]);
        assert_memory_equal(bands, whole, count * sizeof *bands);
        free(whole);
        free(bands);
    }
    free(wanted);
    free(input);
    for (size_t i = 0; i < b->weights.count; i++) free(b->values[i]);
    free(b);
}

static void convolutions_in_bands(void **state)
{
    (void)state;
    bed *b = new_bed(5);
    add_conv(b, 0, 20);
    check(b, 43, 150, 3 << 20);
    b = new_bed(5);
    const int x = add_conv(b, 0, 17);
    add_conv(b, add_node(b, LUNA_OP_UPSAMPLE, x, 17), 17);
    check(b, 23, 41, 3 << 20);
}

static void additions_in_bands(void **state)
{
    (void)state;
    bed *b = new_bed(6);
    const int x = add_conv(b, 0, 18), y = add_conv(b, 0, 18);
    const int sum = add_node(b, LUNA_OP_ADD, x, 18);
    b->graph.node[sum].input[1] = y;
    const int z = add_conv(b, sum, 18);
    const int last = add_node(b, LUNA_OP_ADD, sum, 18);
    b->graph.node[last].input[1] = z;
    check(b, 38, 61, 3 << 20);
}

//  More keys than a block holds, and no multiple of anything.
static void attention_in_blocks(void **state)
{
    (void)state;
    bed *b = new_bed(7);
    const int x = add_conv(b, 0, 24), y = add_conv(b, 0, 24);
    const int node = add_node(b, LUNA_OP_ATTENTION, x, 24);
    b->graph.node[node].input[1] = y;
    b->graph.node[node].input[2] = x;
    check(b, 37, 59, 6 << 20);
}

//  A group whose mean is a thousand deviations from zero.
static void norm_far_from_zero(void **state)
{
    (void)state;
    bed *b = new_bed(12);
    const int shifted = add_node(b, LUNA_OP_AFFINE, 0, 12);
    b->graph.node[shifted].scale = 1.0F;
    b->graph.node[shifted].shift = -500.0F;
    const int norm = add_node(b, LUNA_OP_GROUP_NORM, shifted, 12);
    b->graph.node[norm].groups = 4;
    b->graph.node[norm].epsilon = 1e-6F;
    b->graph.node[norm].weight = add_weight(b, 12);
    b->graph.node[norm].bias = add_weight(b, 12);
    check(b, 33, 130, 1 << 20);
}

static int open_group(void **state)
{
    uint64_t seed = 3;
    size_t peak_bytes;
    const size_t count = sizeof latent_values / sizeof latent_values[0];
    for (size_t i = 0; i < count; i++) latent_values[i] = random_float(&seed);
    *state = decoded(2, 0, &peak_bytes);
    return 0;
}

static int close_group(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_threads),
        cmocka_unit_test(any_amount_of_memory),
        cmocka_unit_test(a_limit_that_is_too_low_is_told),
        cmocka_unit_test(no_room_for_the_file),
        cmocka_unit_test(the_file_leaves_nothing_behind),
        cmocka_unit_test(convolutions_in_bands),
        cmocka_unit_test(additions_in_bands),
        cmocka_unit_test(attention_in_blocks),
        cmocka_unit_test(norm_far_from_zero),
    };
    return cmocka_run_group_tests(tests, open_group, close_group);
}
#else
int main(void)
{
    return 0;
}
#endif
