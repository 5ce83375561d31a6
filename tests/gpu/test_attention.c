//  The fused attention against its definition in double, on fresh random input: scores
//  from nearly alike to hundreds apart, token counts that fill no tile. Beside it the
//  library's products with a softmax between them, which it must not be worse than.

#include "gpu_test.h"

enum { WIDE = GPU_ATTENTION_CHANNELS };

static const char *const type_names[] = {"fp16", "bf16"};

//  One matrix [tokens][room], as the device holds it and as floats.
typedef struct matrix {
    float *values;
    void *device;
} matrix;

static float widen(gpu_type type, uint16_t bits)
{
    const uint32_t upper = (uint32_t)bits << 16;
    const uint32_t mantissa = bits & 0x3ffU, exponent = bits >> 10 & 31U;
    const float sign = bits >> 15 ? -1.0F : 1.0F;
    float value = 0.0F;
    if (type == GPU_BF16) {
        memcpy(&value, &upper, sizeof value);
        return value;
    }
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexpf((float)mantissa, -24);
    return sign * ldexpf((float)(mantissa + 1024), (int)exponent - 25);
}

static float *widen_all(gpu_type type, const uint16_t *bits, size_t count)
{
    float *values = floats(count);
    for (size_t i = 0; i < count; i++) values[i] = widen(type, bits[i]);
    return values;
}

//  What is only room is 0.
static matrix random_matrix(gpu_type type, size_t tokens, size_t channels, float spread)
{
    const size_t room = gpu_room(channels), count = tokens * room;
    float *narrow = random_floats(count, spread, 0.0F);
    for (size_t i = 0; i < count; i++)
        if (i % room >= channels) narrow[i] = 0.0F;
    gpu_narrow(type, narrow, count);
    const matrix m = {widen_all(type, (const uint16_t *)(const void *)narrow, count),
                      to_device(narrow, count * 2)};
    free(narrow);
    return m;
}

static void free_matrix(const matrix *m)
{
    ok(cudaFree(m->device));
    free(m->values);
}

typedef struct attention {
    gpu_type type;
    size_t tokens, channels, room;
    matrix q, k, v;
    void *y;
} attention;

static size_t values_of(const attention *a)
{
    return a->tokens * a->room;
}

static attention random_attention(gpu_type type, size_t tokens, size_t channels,
                                  float spread)
{
    const size_t room = gpu_room(channels);
    return (attention){type,
                       tokens,
                       channels,
                       room,
                       random_matrix(type, tokens, channels, spread),
                       random_matrix(type, tokens, channels, 1.0F),
                       random_matrix(type, tokens, channels, 1.0F),
                       device_room(tokens * room * 2)};
}

static void free_attention(attention *a)
{
    free_matrix(&a->q);
    free_matrix(&a->k);
    free_matrix(&a->v);
    ok(cudaFree(a->y));
}

static uint16_t *result_of(const attention *a)
{
    const size_t bytes = values_of(a) * 2;
    uint16_t *bits = malloc(bytes);
    assert_non_null(bits);
    ok(cudaDeviceSynchronize());
    ok(cudaMemcpy(bits, a->y, bytes, cudaMemcpyDeviceToHost));
    return bits;
}

static float scale_of(const attention *a)
{
    return 1.0F / sqrtf((float)a->channels);
}

//  `rows` at a time.
static uint16_t *run_fused(const attention *a, size_t rows, int multiprocessors)
{
    void *scratch = device_room(gpu_attention_bytes(a->tokens, rows));
    gpu_attention_args args = {.type = a->type,
                               .channels = (int)a->channels,
                               .tokens = a->tokens,
                               .scale = scale_of(a),
                               .q = a->q.device,
                               .k = a->k.device,
                               .v = a->v.device,
                               .y = a->y,
                               .scratch = scratch};
    ok(cudaMemset(a->y, 0xff, values_of(a) * 2));
    for (; args.first < a->tokens; args.first += rows) {
        args.rows = a->tokens - args.first < rows ? a->tokens - args.first : rows;
        ok(gpu_attention_wgmma(&args, multiprocessors, NULL));
    }
    uint16_t *bits = result_of(a);
    ok(cudaFree(scratch));
    return bits;
}

static gpu_gemm *product_of(gpu_device *device, const gpu_gemm_problem *problem)
{
    gpu_gemm *product = NULL;
    if (gpu_gemm_find(device, problem, &product) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    return product;
}

static uint16_t *run_products(gpu_device *device, const attention *a)
{
    const size_t n = a->tokens, pitch = gpu_room(n);
    const gpu_type score = a->type == GPU_FP16 ? GPU_FP16 : GPU_FP32;
    void *scores = device_room(n * pitch * gpu_size(score));
    void *weights = score == a->type ? scores : device_room(n * pitch * 2);
    const size_t room = a->room;
    const gpu_gemm_problem first = {a->type, score, n, n, room, room, room, pitch, true};
    const gpu_gemm_problem second = {a->type, a->type, n,    room, n,
                                     pitch,   room,    room, false};
    assert_int_equal(gpu_gemm_run(device, product_of(device, &first), scale_of(a),
                                  a->q.device, a->k.device, scores),
                     LUNA_OK);
    ok(gpu_softmax(score, scores, a->type, weights, n, n, device->stream));
    assert_int_equal(gpu_gemm_run(device, product_of(device, &second), 1.0F, weights,
                                  a->v.device, a->y),
                     LUNA_OK);
    uint16_t *bits = result_of(a);
    if (weights != scores) ok(cudaFree(weights));
    ok(cudaFree(scores));
    return bits;
}

static double product_of_rows(const attention *a, size_t query, size_t key)
{
    double sum = 0.0;
    for (size_t c = 0; c < a->channels; c++)
        sum += (double)a->q.values[query * a->room + c] *
               (double)a->k.values[key * a->room + c];
    return sum;
}

//  One row of the result.
static void define_row(const attention *a, size_t row, double *weights, double *wanted)
{
    double most = -INFINITY, sum = 0.0;
    for (size_t j = 0; j < a->tokens; j++) {
        weights[j] = product_of_rows(a, row, j) / sqrt((double)a->channels);
        most = fmax(most, weights[j]);
    }
    memset(wanted, 0, a->channels * sizeof *wanted);
    for (size_t j = 0; j < a->tokens; j++) {
        weights[j] = exp(weights[j] - most);
        sum += weights[j];
        for (size_t c = 0; c < a->channels; c++)
            wanted[c] += weights[j] * (double)a->v.values[j * a->room + c];
    }
    for (size_t c = 0; c < a->channels; c++) wanted[c] /= sum;
}

enum { WAYS = 2 };

//  |result - definition| / |definition| of each way, over rows of which the last is one.
static void distances(const attention *a, uint16_t *const bits[WAYS], double out[WAYS])
{
    double *weights = calloc(a->tokens, sizeof *weights), wanted[WIDE];
    double off[WAYS] = {0.0}, all = 0.0;
    assert_non_null(weights);
    for (size_t i = 0; i < 24; i++) {
        const size_t row = i == 0 ? a->tokens - 1 : random_below(a->tokens);
        define_row(a, row, weights, wanted);
        for (size_t c = 0; c < a->channels; c++) {
            all += wanted[c] * wanted[c];
            for (int w = 0; w < WAYS; w++)
                off[w] += pow(
                    (double)widen(a->type, bits[w][row * a->room + c]) - wanted[c], 2.0);
        }
    }
    for (int w = 0; w < WAYS; w++) out[w] = sqrt(off[w] / all);
    free(weights);
}

//  What is only room stays 0: the next convolution reads it.
static void all_finite(const attention *a, const uint16_t *bits)
{
    for (size_t i = 0; i < values_of(a); i++) {
        const float value = widen(a->type, bits[i]);
        if (!isfinite(value) || (i % a->room >= a->channels && value != 0.0F))
            fail_msg("value %zu of row %zu is %g", i % a->room, i / a->room,
                     (double)value);
    }
}

static void one_attention(gpu_device *device, gpu_type type, size_t tokens,
                          size_t channels, float spread)
{
    attention a = random_attention(type, tokens, channels, spread);
    uint16_t *bits[WAYS] = {run_fused(&a, tokens, 132), run_products(device, &a)};
    double off[WAYS];
    distances(&a, bits, off);
    printf("%s, %zu tokens of %zu, spread %g: %.2g, the library's %.2g\n",
           type_names[type], tokens, channels, (double)spread, off[0], off[1]);
    if (!(off[0] <= (type == GPU_FP16 ? 6e-4 : 4e-3))) fail_msg("too far from it");
    if (!(off[0] <= 1.25 * off[1] + 1e-5)) fail_msg("worse than the library's");
    all_finite(&a, bits[0]);
    for (int w = 0; w < WAYS; w++) free(bits[w]);
    free_attention(&a);
}

static void close_to_the_definition(void **state)
{
    const size_t widths[] = {8, 64, 100, 256, 384, 24 + random_below(WIDE - 24)};
    static const float spreads[] = {0.1F, 3.0F, 30.0F, 300.0F, 3000.0F};
    gpu_device *device = *state;
    for (int type = GPU_FP16; type <= GPU_BF16; type++) {
        const size_t counts[] = {1,
                                 63,
                                 64,
                                 128,
                                 129,
                                 256,
                                 1 + random_below(700),
                                 2048,
                                 1 + random_below(3000)};
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
            one_attention(device, (gpu_type)type, counts[i], WIDE, 3.0F);
        for (size_t i = 0; i < sizeof spreads / sizeof spreads[0]; i++)
            one_attention(device, (gpu_type)type, 700 + random_below(700), WIDE,
                          spreads[i]);
        for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
            one_attention(device, (gpu_type)type, 1 + random_below(700), widths[i], 3.0F);
    }
}

//  Cut into chunks and dealt out to more or fewer multiprocessors.
static void same_bits_however_cut(void **state)
{
    (void)state;
    for (int type = GPU_FP16; type <= GPU_BF16; type++) {
        attention a =
            random_attention((gpu_type)type, 900 + random_below(1200), WIDE, 10.0F);
        const size_t bytes = values_of(&a) * 2;
        uint16_t *whole = run_fused(&a, a.tokens, 132);
        const struct {
            size_t rows;
            int multiprocessors;
        } cuts[] = {{a.tokens, 132}, {a.tokens, 2}, {256, 132}, {512, 26}};
        for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
            uint16_t *bits = run_fused(&a, cuts[i].rows, cuts[i].multiprocessors);
            assert_memory_equal(bits, whole, bytes);
            free(bits);
        }
        free(whole);
        free_attention(&a);
    }
}

//  One key far above all others: its value comes out, whichever tile it is in.
static void one_key_takes_all(void **state)
{
    (void)state;
    attention a = random_attention(GPU_FP16, 1000, WIDE, 0.01F);
    const size_t bytes = values_of(&a) * 2;
    const size_t at[] = {0, 127, 128, 500, 999};
    uint16_t *q = malloc(bytes), *k = calloc(1, bytes);
    assert_true(q && k);
    for (size_t i = 0; i < values_of(&a); i++) q[i] = 0x4900;  //  10
    ok(cudaMemcpy(a.q.device, q, bytes, cudaMemcpyHostToDevice));
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        memset(k, 0, bytes);
        for (size_t c = 0; c < WIDE; c++) k[at[i] * WIDE + c] = 0x4900;
        ok(cudaMemcpy(a.k.device, k, bytes, cudaMemcpyHostToDevice));
        uint16_t *bits = run_fused(&a, a.tokens, 132);
        for (size_t c = 0; c < values_of(&a); c++)
            assert_true(widen(GPU_FP16, bits[c]) == a.v.values[at[i] * WIDE + c % WIDE]);
        free(bits);
    }
    free(q);
    free(k);
    free_attention(&a);
}

//  Where one is not a number, its row's results are not either, and no other row's.
static void not_a_number_shows(void **state)
{
    (void)state;
    attention a = random_attention(GPU_FP16, 300, WIDE, 3.0F);
    const uint16_t bad = 0x7e00;
    const size_t row = random_below(a.tokens);
    ok(cudaMemcpy((uint16_t *)a.q.device + row * WIDE + random_below(WIDE), &bad, 2,
                  cudaMemcpyHostToDevice));
    uint16_t *bits = run_fused(&a, a.tokens, 132);
    for (size_t i = 0; i < values_of(&a); i++)
        assert_true((isfinite(widen(GPU_FP16, bits[i])) != 0) == (i / WIDE != row));
    free(bits);
    free_attention(&a);
}

static bool card_can(void)
{
    struct cudaDeviceProp card;
    ok(cudaGetDeviceProperties(&card, 0));
    return card.major == 9 && card.minor == 0;
}

int main(int argc, char **argv)
{
    static gpu_device device;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(close_to_the_definition, &device),
        cmocka_unit_test(same_bits_however_cut),
        cmocka_unit_test(one_key_takes_all),
        cmocka_unit_test(not_a_number_shows),
    };
    if (!card_can()) {
        puts("skipped: the fused attention is for compute capability 9.0");
        return 0;
    }
    if (gpu_device_open(0, &device) != LUNA_OK) {
        printf("%s\n", luna_error_text());
        return 1;
    }
    fresh_seed();
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gpu_device_close(&device);
    return failed;
}
