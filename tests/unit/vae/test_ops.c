//  Every operator on every backend against its definition in double, on fresh random
//  input.

#include "decoder/vae/backend.h"
#include "vae/vae_test.h"

#include <sys/random.h>

static uint64_t seed;

//  A graph under test with the parameters it names.
typedef struct bed {
    luna_graph graph;
    luna_weights weights;
    float *values[16];
    size_t height;
    size_t width;
} bed;

static int parameter(bed *b, size_t count)
{
    const size_t i = b->weights.count++;
    b->values[i] = random_floats(&seed, count);
    b->weights.item[i] = (luna_weight){
        .name = "w", .dtype = LUNA_DTYPE_F32, .data = b->values[i], .count = count};
    return (int)i;
}

static int append(bed *b, luna_node node)
{
    b->graph.node[b->graph.count] = node;
    return (int)b->graph.count++;
}

static int plain(bed *b, luna_op op, int x, size_t channels)
{
    return append(b, (luna_node){.op = op,
                                 .input = {x, LUNA_NONE, LUNA_NONE},
                                 .weight = LUNA_NONE,
                                 .bias = LUNA_NONE,
                                 .channels = channels,
                                 .scale = 3.0F,
                                 .shift = 0.25F});
}

static int conv(bed *b, int x, size_t channels, size_t kernel, bool bias)
{
    const int node = plain(b, LUNA_OP_CONV2D, x, channels);
    luna_node *n = &b->graph.node[node];
    n->kernel = kernel;
    n->weight = parameter(b, channels * b->graph.node[x].channels * kernel * kernel);
    if (bias) n->bias = parameter(b, channels);
    return node;
}

static int add(bed *b, int x, int y)
{
    const int node = plain(b, LUNA_OP_ADD, x, b->graph.node[x].channels);
    b->graph.node[node].input[1] = y;
    return node;
}

static int group_norm(bed *b, int x, size_t groups)
{
    const int node = plain(b, LUNA_OP_GROUP_NORM, x, b->graph.node[x].channels);
    luna_node *n = &b->graph.node[node];
    n->groups = groups;
    n->epsilon = 1e-5F;
    n->weight = parameter(b, n->channels);
    n->bias = parameter(b, n->channels);
    return node;
}

static int attention(bed *b, int q, int k, int v)
{
    const int node = plain(b, LUNA_OP_ATTENTION, q, b->graph.node[q].channels);
    b->graph.node[node].input[1] = k;
    b->graph.node[node].input[2] = v;
    return node;
}

//  RMS_NORM and BATCH_NORM_INVERSE; its variances are positive.
static int scaled(bed *b, luna_op op, int x)
{
    const int node = plain(b, op, x, b->graph.node[x].channels);
    luna_node *n = &b->graph.node[node];
    n->epsilon = 1e-4F;
    n->weight = parameter(b, n->channels);
    if (op == LUNA_OP_RMS_NORM) return node;
    n->bias = parameter(b, n->channels);
    for (size_t i = 0; i < n->channels; i++)
        b->values[n->weight][i] = fabsf(b->values[n->weight][i]);
    return node;
}

static bed *new_bed(size_t channels, size_t height, size_t width)
{
    bed *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->height = height;
    b->width = width;
    plain(b, LUNA_OP_INPUT, LUNA_NONE, channels);
    return b;
}

static void free_bed(bed *b)
{
    for (size_t i = 0; i < b->weights.count; i++) free(b->values[i]);
    free(b);
}

//  ---- the definitions -------------------------------------------------------------

typedef struct oracle {
    double *value[LUNA_GRAPH_MAX];
    luna_shape shape[LUNA_GRAPH_MAX];
} oracle;

static double conv_at(const bed *b, const oracle *o, const luna_node *n, size_t out,
                      size_t y, size_t x)
{
    const luna_shape *s = &o->shape[n->input[0]];
    const double *in = o->value[n->input[0]];
    const float *w = b->values[n->weight];
    double sum = n->bias == LUNA_NONE ? 0.0 : b->values[n->bias][out];
    for (size_t c = 0; c < s->channels; c++)
        for (size_t ky = 0; ky < n->kernel; ky++)
            for (size_t kx = 0; kx < n->kernel; kx++) {
                const size_t iy = y + ky - n->kernel / 2, ix = x + kx - n->kernel / 2;
                if (iy >= s->height || ix >= s->width) continue;
                sum += in[(c * s->height + iy) * s->width + ix] *
                       w[((out * s->channels + c) * n->kernel + ky) * n->kernel + kx];
            }
    return sum;
}

static double norm_at(const bed *b, const oracle *o, const luna_node *n, size_t index)
{
    const luna_shape *s = &o->shape[n->input[0]];
    const double *in = o->value[n->input[0]];
    const size_t area = s->height * s->width, each = s->count / n->groups;
    const size_t start = index / each * each, channel = index / area;
    double mean = 0.0, variance = 0.0;
    for (size_t i = 0; i < each; i++) mean += in[start + i] / (double)each;
    for (size_t i = 0; i < each; i++)
        variance += (in[start + i] - mean) * (in[start + i] - mean) / (double)each;
    return (in[index] - mean) / sqrt(variance + n->epsilon) *
               b->values[n->weight][channel] +
           b->values[n->bias][channel];
}

static double score(const oracle *o, const luna_node *n, size_t p, size_t other)
{
    const luna_shape *s = &o->shape[n->input[0]];
    const size_t area = s->height * s->width;
    const double *q = o->value[n->input[0]], *k = o->value[n->input[1]];
    double sum = 0.0;
    for (size_t c = 0; c < s->channels; c++) sum += q[c * area + p] * k[c * area + other];
    return sum / sqrt((double)s->channels);
}

static double attention_at(const oracle *o, const luna_node *n, size_t index)
{
    const luna_shape *s = &o->shape[n->input[0]];
    const size_t area = s->height * s->width, p = index % area;
    const double *v = o->value[n->input[2]] + index / area * area;
    double sum = 0.0, weights = 0.0;
    for (size_t i = 0; i < area; i++) {
        const double weight = exp(score(o, n, p, i));
        sum += weight * v[i];
        weights += weight;
    }
    return sum / weights;
}

static double rms_at(const bed *b, const oracle *o, const luna_node *n, size_t index)
{
    const luna_shape *s = &o->shape[n->input[0]];
    const size_t area = s->height * s->width;
    const double *in = o->value[n->input[0]];
    double squares = 0.0;
    for (size_t c = 0; c < s->channels; c++)
        squares += in[c * area + index % area] * in[c * area + index % area];
    return in[index] / fmax(sqrt(squares), n->epsilon) * sqrt((double)s->channels) *
           b->values[n->weight][index / area];
}

static double moved(const oracle *o, const luna_node *n, size_t c, size_t y, size_t x)
{
    const luna_shape *s = &o->shape[n->input[0]];
    const size_t from = n->op == LUNA_OP_UNPACK ? 4 * c + y % 2 * 2 + x % 2 : c;
    return o->value[n->input[0]][(from * s->height + y / 2) * s->width + x / 2];
}

static double defined(const bed *b, const oracle *o, size_t node, size_t index)
{
    const luna_node *n = &b->graph.node[node];
    const luna_shape *s = &o->shape[node];
    const size_t x = index % s->width, y = index / s->width % s->height;
    const size_t c = index / (s->width * s->height);
    const double in =
        o->value[n->input[0]]
                [n->op == LUNA_OP_CONV2D || n->op == LUNA_OP_UPSAMPLE ? 0 : index];
    switch (n->op) {
        case LUNA_OP_CONV2D:
            return conv_at(b, o, n, c, y, x);
        case LUNA_OP_RELU:
            return in > 0.0 ? in : 0.0;
        case LUNA_OP_SILU:
            return in / (1.0 + exp(-in));
        case LUNA_OP_TANH_CLAMP:
            return 3.0 * tanh(in / 3.0);
        case LUNA_OP_AFFINE:
            return (in - 0.25) * 3.0;
        case LUNA_OP_ADD:
            return in + o->value[n->input[1]][index];
        case LUNA_OP_GROUP_NORM:
            return norm_at(b, o, n, index);
        case LUNA_OP_ATTENTION:
            return attention_at(o, n, index);
        case LUNA_OP_RMS_NORM:
            return rms_at(b, o, n, index);
        case LUNA_OP_BATCH_NORM_INVERSE:
            return in * sqrt(b->values[n->weight][c] + (double)n->epsilon) +
                   b->values[n->bias][c];
        default:
            return moved(o, n, c, y, x);
    }
}

static oracle *new_oracle(const bed *b, const float *input)
{
    oracle *o = calloc(1, sizeof *o);
    assert_non_null(o);
    assert_int_equal(luna_graph_infer(&b->graph, b->height, b->width, o->shape), LUNA_OK);
    for (size_t i = 0; i < b->graph.count; i++) {
        o->value[i] = malloc(o->shape[i].count * sizeof(double));
        assert_non_null(o->value[i]);
        for (size_t k = 0; k < o->shape[i].count; k++)
            o->value[i][k] = i == 0 ? (double)input[k] : defined(b, o, i, k);
    }
    return o;
}

static void free_oracle(const bed *b, oracle *o)
{
    for (size_t i = 0; i < b->graph.count; i++) free(o->value[i]);
    free(o);
}

//  ---- running and comparing -------------------------------------------------------

static void run_backend(const luna_backend *backend, const bed *b,
                        const luna_shape *shapes, const float *input, float *output)
{
    void *state = NULL;
    luna_plan *plan = NULL;
    luna_vae_cost cost;
    const luna_backend_options options = {.weights = &b->weights,
                                          .precision = LUNA_VAE_PRECISION_FP32};
    const luna_plan_request request = {.graph = &b->graph, .shapes = shapes};
    if (backend->open(&options, &state) != LUNA_OK ||
        backend->compile(state, &request, &plan, &cost) != LUNA_OK ||
        backend->run(state, plan, input, output) != LUNA_OK)
        fail_msg("%s: %s", backend->device, luna_error_text());
    backend->free_plan(state, plan);
    backend->close(state);
}

static double largest_of(const oracle *o, size_t node)
{
    double most = 1.0;
    for (size_t i = 0; i < o->shape[node].count; i++)
        most = fmax(most, fabs(o->value[node][i]));
    return most;
}

//  Within what rounding makes of the result, or of what the last operator reads: a clamp
//  makes large values small, not their errors.
static void compare(const luna_backend *backend, const bed *b, const oracle *o,
                    const float *input)
{
    const size_t last = b->graph.count - 1, count = o->shape[last].count;
    const size_t before = (size_t)b->graph.node[last].input[0];
    float *output = malloc(count * sizeof *output);
    const double scale = fmax(largest_of(o, last), largest_of(o, before));
    run_backend(backend, b, o->shape, input, output);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)output[i] - o->value[last][i]) <= 2e-5 * scale))
            fail_msg("%s, %s: value %zu is %.9g, not %.9g (largest %.3g)",
                     backend->device, luna_op_name(b->graph.node[last].op), i,
                     (double)output[i], o->value[last][i], scale);
    free(output);
}

//  Takes the bed over.
static void check(bed *b)
{
    const luna_backend *cpu = NULL;
    int index;
    float *input = random_floats(&seed, b->graph.node[0].channels * b->height * b->width);
    oracle *o = new_oracle(b, input);
    assert_int_equal(luna_backend_find("cpu", &cpu, &index), LUNA_OK);
    compare(&luna_backend_reference, b, o, input);
    if (cpu != &luna_backend_reference) compare(cpu, b, o, input);
    free_oracle(b, o);
    free(input);
    free_bed(b);
}

static void convolutions(void **state)
{
    (void)state;
    static const size_t cases[][5] = {
        //  from, to, kernel, height, width
        {4, 64, 3, 5, 7},   {64, 64, 3, 16, 16}, {64, 64, 3, 1, 1},  {64, 3, 3, 9, 13},
        {32, 64, 3, 13, 3}, {64, 256, 1, 7, 5},  {256, 64, 1, 6, 6}, {3, 5, 3, 4, 4},
        {5, 7, 1, 3, 2},    {1, 1, 3, 2, 9},     {48, 96, 3, 20, 1}, {96, 48, 3, 33, 35},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int bias = 0; bias < 2; bias++) {
            bed *b = new_bed(cases[i][0], cases[i][3], cases[i][4]);
            conv(b, 0, cases[i][1], cases[i][2], bias);
            check(b);
        }
}

static void single_operators(void **state)
{
    (void)state;
    static const luna_op ops[] = {LUNA_OP_RELU, LUNA_OP_SILU, LUNA_OP_TANH_CLAMP,
                                  LUNA_OP_AFFINE};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        bed *b = new_bed(6, 5, 3);
        plain(b, ops[i], 0, 6);
        check(b);
    }
    bed *b = new_bed(20, 3, 5);
    plain(b, LUNA_OP_UNPACK, 0, 5);
    check(b);
    b = new_bed(5, 3, 1);
    plain(b, LUNA_OP_UPSAMPLE, 0, 5);
    check(b);
    b = new_bed(5, 3, 4);
    add(b, 0, 0);
    check(b);
}

//  The same after a convolution, whose result has the library's own layout.
static void operators_after_a_convolution(void **state)
{
    (void)state;
    static const luna_op ops[] = {LUNA_OP_RELU,   LUNA_OP_SILU,   LUNA_OP_TANH_CLAMP,
                                  LUNA_OP_AFFINE, LUNA_OP_UNPACK, LUNA_OP_UPSAMPLE};
    for (size_t channels = 8; channels <= 64; channels *= 2)
        for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
            bed *b = new_bed(16, 7, 9);
            const int x = conv(b, 0, channels, 3, true);
            plain(b, ops[i], x, ops[i] == LUNA_OP_UNPACK ? channels / 4 : channels);
            check(b);
        }
}

static void group_norms(void **state)
{
    (void)state;
    static const size_t cases[][2] = {{64, 4},  {256, 4}, {64, 32},
                                      {96, 32}, {12, 3},  {8, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t kernel = 1; kernel <= 3; kernel += 2) {
            bed *b = new_bed(16, 9, 6);
            const int x =
                group_norm(b, conv(b, 0, cases[i][0], kernel, true), cases[i][1]);
            conv(b, plain(b, LUNA_OP_RELU, x, cases[i][0]), 24, kernel, false);
            check(b);
        }
    bed *b = new_bed(12, 1, 1);
    group_norm(b, 0, 4);
    check(b);
}

//  Of the input itself, of convolutions' results, and with the same value twice.
static void attentions(void **state)
{
    (void)state;
    static const size_t cases[][3] = {{32, 9, 7}, {48, 1, 1}, {5, 3, 11}, {64, 20, 20}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int kind = 0; kind < 3; kind++) {
            bed *b = new_bed(cases[i][0], cases[i][1], cases[i][2]);
            const int q = kind == 0 ? 0 : conv(b, 0, cases[i][0], 1, true);
            const int k = kind == 1 ? q : conv(b, 0, cases[i][0], 1, true);
            const int v = conv(b, 0, cases[i][0], 1, false);
            const int y = attention(b, q, k, v);
            if (kind == 2) add(b, conv(b, y, cases[i][0], 1, true), 0);
            check(b);
        }
}

//  Scores far apart: the softmax must neither overflow nor lose its sum.
static void attention_of_large_scores(void **state)
{
    (void)state;
    bed *b = new_bed(16, 5, 6);
    const int q = conv(b, 0, 16, 1, true), k = conv(b, 0, 16, 1, true);
    for (size_t i = 0; i < 256; i++) b->values[0][i] *= 30.0F;
    attention(b, q, k, 0);
    check(b);
}

static void norms_by_pixel_and_by_channel(void **state)
{
    (void)state;
    static const luna_op ops[] = {LUNA_OP_RMS_NORM, LUNA_OP_BATCH_NORM_INVERSE};
    for (size_t channels = 3; channels <= 96; channels *= 2)
        for (size_t i = 0; i < 2; i++) {
            bed *b = new_bed(channels, 5, 7);
            scaled(b, ops[i], 0);
            check(b);
            b = new_bed(4, 5, 7);
            conv(b, scaled(b, ops[i], conv(b, 0, channels, 3, true)), 8, 3, true);
            check(b);
        }
}

//  A weight that is every third value of its tensor, as a slice of time.
static void a_weight_with_gaps(void **state)
{
    (void)state;
    float *packed = NULL;
    const float values[] = {9.0F, 9.0F, 1.0F, 2.0F, 9.0F, 9.0F, 3.0F, 4.0F};
    const luna_weight weight = {.name = "w",
                                .dtype = LUNA_DTYPE_F32,
                                .data = values + 2,
                                .count = 4,
                                .run = 2,
                                .gap = 2};
    assert_int_equal(luna_backend_floats(&weight, &packed), LUNA_OK);
    for (int i = 0; i < 4; i++) assert_true(packed[i] == (float)(i + 1));
    free(packed);
}

//  A residual that may be summed in place, and four that may not.
static void residuals(void **state)
{
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        bed *b = new_bed(32, 12, 10);
        const int x = kind == 4 ? 0 : conv(b, 0, 32, 3, true);
        const int y = kind == 1 ? x : plain(b, LUNA_OP_RELU, conv(b, x, 32, 3, true), 32);
        const int z = conv(b, y, 32, 3, true);
        int sum = kind == 3 ? add(b, x, z) : add(b, z, x);
        sum = plain(b, LUNA_OP_RELU, sum, 32);
        if (kind == 2) add(b, x, sum);
        check(b);
    }
    bed *b = new_bed(32, 8, 8);
    const int x = conv(b, 0, 32, 1, true);
    const int y = conv(b, x, 32, 3, true);
    const int z = conv(b, x, 32, 1, true);
    add(b, add(b, y, z), y);
    check(b);
}

static void pick_seed(void)
{
    const char *given = getenv("LUNA_TEST_SEED");
    if (given)
        seed = strtoull(given, NULL, 10);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = 1;
    print_message("LUNA_TEST_SEED=%llu\n", (unsigned long long)seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(single_operators),
        cmocka_unit_test(operators_after_a_convolution),
        cmocka_unit_test(group_norms),
        cmocka_unit_test(attentions),
        cmocka_unit_test(attention_of_large_scores),
        cmocka_unit_test(norms_by_pixel_and_by_channel),
        cmocka_unit_test(a_weight_with_gaps),
        cmocka_unit_test(residuals),
    };
    pick_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
