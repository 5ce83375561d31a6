//  Every kernel against its definition in double, on fresh random input, in every type,
//  with channel counts that fill no vector and sizes that fill no tile.

#include "gpu_test.h"

static const gpu_type types[] = {GPU_FP16, GPU_BF16, GPU_FP32};
static const char *const type_names[] = {"fp16", "bf16", "fp32"};

//  One value both ways: planar floats as the device holds them, rounded to its type.
typedef struct subject {
    gpu_extent extent;
    size_t count;   //  channels * pixels
    float *values;  //  planar
    void *device;
} subject;

static subject new_subject(gpu_type type, int channels, int height, int width,
                           float spread, float centre)
{
    subject s = {.extent = {type, channels, height, width}};
    s.count = gpu_pixels(&s.extent) * (size_t)channels;
    float *planes = random_floats(s.count, spread, centre);
    float *there = to_device(planes, s.count * sizeof *planes);
    float *back = device_room(s.count * sizeof *planes);
    s.device = device_room(gpu_bytes(&s.extent));
    ok(gpu_from_planes(&s.extent, there, s.device, NULL));
    ok(gpu_to_planes(&s.extent, s.device, back, NULL));
    s.values = from_device(back, s.count);
    const double digits = type == GPU_FP32 ? 0.0 : type == GPU_FP16 ? 0x1p-11 : 0x1p-8;
    for (size_t i = 0; i < s.count; i++)
        if (!(fabs(s.values[i] - planes[i]) <= digits * fabs(planes[i]) + 1e-7))
            fail_msg("%s: %g came back as %g", type_names[type], (double)planes[i],
                     (double)s.values[i]);
    ok(cudaFree(there));
    ok(cudaFree(back));
    free(planes);
    return s;
}

static void free_subject(subject *s)
{
    ok(cudaFree(s->device));
    free(s->values);
}

static float *planes_of(const gpu_extent *e, const void *device)
{
    const size_t count = gpu_pixels(e) * (size_t)e->channels;
    float *planes = device_room(count * sizeof *planes);
    ok(gpu_to_planes(e, device, planes, NULL));
    float *values = from_device(planes, count);
    ok(cudaFree(planes));
    return values;
}

static double tolerance(gpu_type type)
{
    return type == GPU_FP32 ? 2e-5 : type == GPU_FP16 ? 1.5e-3 : 1.2e-2;
}

//  Within the type's rounding of the largest value.
static void compare(const char *what, const gpu_extent *e, const float *is,
                    const double *wanted)
{
    const size_t count = gpu_pixels(e) * (size_t)e->channels;
    double scale = 1.0;
    for (size_t i = 0; i < count; i++) scale = fmax(scale, fabs(wanted[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)is[i] - wanted[i]) <= tolerance(e->type) * scale))
            fail_msg("%s %s %dx%dx%d: value %zu is %.7g, not %.7g", what,
                     type_names[e->type], e->channels, e->height, e->width, i,
                     (double)is[i], wanted[i]);
}

static void compare_device(const char *what, const gpu_extent *e, const void *device,
                           const double *wanted)
{
    float *is = planes_of(e, device);
    compare(what, e, is, wanted);
    free(is);
}

static double *doubles(size_t count)
{
    double *values = calloc(count ? count : 1, sizeof *values);
    assert_non_null(values);
    return values;
}

//  What is only room must stay 0: the next convolution reads it.
static void check_room(const gpu_extent *e, const void *device)
{
    gpu_extent whole = *e;
    whole.channels = (int)gpu_room((size_t)e->channels);
    float *all = planes_of(&whole, device);
    const size_t pixels = gpu_pixels(e);
    for (size_t i = (size_t)e->channels * pixels; i < (size_t)whole.channels * pixels;
         i++)
        if (all[i] != 0.0F)
            fail_msg("room of channel %zu is %g", i / pixels, (double)all[i]);
    free(all);
}

//  ---- maps --------------------------------------------------------------------------

static double act_of(gpu_act act, double x)
{
    if (act == GPU_RELU) return x > 0.0 ? x : 0.0;
    if (act == GPU_SILU) return x / (1.0 + exp(-x));
    return x;
}

static gpu_pair *random_pairs(int channels, gpu_pair **device)
{
    const size_t room = gpu_room((size_t)channels);
    gpu_pair *pairs = calloc(room, sizeof *pairs);
    assert_non_null(pairs);
    for (int c = 0; c < channels; c++)
        pairs[c] = (gpu_pair){random_float(), random_float()};
    *device = to_device(pairs, room * sizeof *pairs);
    return pairs;
}

static void one_apply(gpu_type type, gpu_act act, int channels, int height, int width)
{
    gpu_pair *device = NULL;
    subject x = new_subject(type, channels, height, width, 9.0F, 0.0F);
    gpu_pair *pairs = random_pairs(channels, &device);
    double *wanted = doubles(x.count);
    const size_t pixels = gpu_pixels(&x.extent);
    for (size_t i = 0; i < x.count; i++) {
        const gpu_pair pair = pairs[i / pixels];
        wanted[i] = act == GPU_TANH
                        ? pair.offset * tanh((double)pair.scale * x.values[i])
                        : act_of(act, (double)pair.scale * x.values[i] + pair.offset);
    }
    ok(gpu_apply(&x.extent, device, act, x.device, x.device, NULL));
    compare_device("apply", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    ok(cudaFree(device));
    free(pairs);
    free(wanted);
    free_subject(&x);
}

static void applies(void **state)
{
    (void)state;
    static const int channels[] = {3, 8, 64, 96, 128, 200, 384, 512, 1024};
    for (int t = 0; t < 3; t++)
        for (int act = GPU_LINEAR; act <= GPU_TANH; act++)
            for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
                one_apply(types[t], (gpu_act)act, channels[i], 1 + (int)random_below(40),
                          1 + (int)random_below(40));
}

static void one_add(gpu_type type, int channels, int height, int width, bool with_z,
                    bool with_bias, gpu_act act)
{
    subject x = new_subject(type, channels, height, width, 3.0F, 0.0F);
    subject z = new_subject(type, channels, height, width, 3.0F, 1.0F);
    const size_t room = gpu_room((size_t)channels), pixels = gpu_pixels(&x.extent);
    float *bias = floats(room);
    for (int c = 0; c < channels; c++) bias[c] = random_float();
    float *device_bias = to_device(bias, room * sizeof *bias);
    double *wanted = doubles(x.count);
    for (size_t i = 0; i < x.count; i++)
        wanted[i] = act_of(act, (double)x.values[i] + (with_z ? z.values[i] : 0.0) +
                                    (with_bias ? bias[i / pixels] : 0.0));
    ok(gpu_add(&x.extent, x.device, with_z ? z.device : NULL,
               with_bias ? device_bias : NULL, act, x.device, NULL));
    compare_device("add", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    ok(cudaFree(device_bias));
    free(bias);
    free(wanted);
    free_subject(&x);
    free_subject(&z);
}

static void adds(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int kind = 0; kind < 8; kind++)
            one_add(types[t], 5 + (int)random_below(300), 1 + (int)random_below(30),
                    1 + (int)random_below(30), kind & 1, kind & 2,
                    kind & 4 ? GPU_RELU : GPU_LINEAR);
}

static void one_move(gpu_type type, int channels, int height, int width, bool packed)
{
    subject x =
        new_subject(type, packed ? 4 * channels : channels, height, width, 1.0F, 0.0F);
    const gpu_extent to = {type, channels, 2 * height, 2 * width};
    const size_t w = (size_t)to.width, h = (size_t)to.height;
    void *y = device_room(gpu_bytes(&to));
    double *wanted = doubles(gpu_pixels(&to) * (size_t)channels);
    for (size_t i = 0; i < gpu_pixels(&to) * (size_t)channels; i++) {
        const size_t c = i / (w * h), row = i / w % h, column = i % w;
        const size_t from = packed ? 4 * c + 2 * (row % 2) + column % 2 : c;
        wanted[i] = x.values[(from * (h / 2) + row / 2) * (w / 2) + column / 2];
    }
    ok(packed ? gpu_unpack(&to, x.device, y, NULL)
              : gpu_upsample(&to, x.device, y, NULL));
    compare_device("move", &to, y, wanted);
    check_room(&to, y);
    ok(cudaFree(y));
    free(wanted);
    free_subject(&x);
}

static void moves(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int packed = 0; packed < 2; packed++)
            for (int i = 0; i < 4; i++)
                one_move(types[t], 1 + (int)random_below(70), 1 + (int)random_below(20),
                         1 + (int)random_below(20), packed);
}

//  ---- norms -------------------------------------------------------------------------

typedef struct norm_case {
    int channels, groups, height, width;
    float centre;
    bool pending;
} norm_case;

static void norm_definition(const subject *x, const norm_case *c, const float *pending,
                            const float *weight, const float *bias, double *wanted)
{
    const size_t pixels = gpu_pixels(&x->extent);
    const size_t each = (size_t)(c->channels / c->groups) * pixels;
    for (size_t g = 0; g < (size_t)c->groups; g++) {
        double mean = 0.0, variance = 0.0;
        for (size_t i = g * each; i < (g + 1) * each; i++)
            mean += ((double)x->values[i] + pending[i / pixels]) / (double)each;
        for (size_t i = g * each; i < (g + 1) * each; i++) {
            const double off = (double)x->values[i] + pending[i / pixels] - mean;
            variance += off * off / (double)each;
        }
        for (size_t i = g * each; i < (g + 1) * each; i++)
            wanted[i] = ((double)x->values[i] + pending[i / pixels] - mean) /
                            sqrt(variance + 1e-6) * weight[i / pixels] +
                        bias[i / pixels];
    }
}

static void one_group_norm(gpu_type type, const norm_case *c)
{
    subject x = new_subject(type, c->channels, c->height, c->width, 2.0F, c->centre);
    const size_t n = (size_t)c->channels;
    float *weight = random_floats(n, 1.0F, 0.0F), *bias = random_floats(n, 1.0F, 0.0F);
    float *pending = random_floats(n, c->pending ? 1.0F : 0.0F, 0.0F);
    float *dw = to_device(weight, n * 4), *db = to_device(bias, n * 4);
    float *dp = to_device(pending, n * 4);
    const gpu_norm norm = {x.extent, c->groups, 1e-6F, dw, db, c->pending ? dp : NULL};
    void *scratch = device_room(gpu_norm_scratch(&norm));
    gpu_pair *pairs = device_room(gpu_room(n) * sizeof *pairs);
    double *wanted = doubles(x.count);
    norm_definition(&x, c, pending, weight, bias, wanted);
    ok(gpu_norm_pairs(&norm, x.device, scratch, pairs, NULL));
    float *first = from_device(pairs, 2 * gpu_room(n));
    ok(gpu_norm_pairs(&norm, x.device, scratch, pairs, NULL));
    float *second = from_device(pairs, 2 * gpu_room(n));
    assert_memory_equal(first, second, 2 * gpu_room(n) * sizeof *first);
    ok(gpu_apply(&x.extent, pairs, GPU_LINEAR, x.device, x.device, NULL));
    compare_device("group norm", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    void *gone[] = {dw, db, dp, scratch, pairs};
    for (int i = 0; i < 5; i++) ok(cudaFree(gone[i]));
    float *lost[] = {weight, bias, pending, first, second};
    for (int i = 0; i < 5; i++) free(lost[i]);
    free(wanted);
    free_subject(&x);
}

static void group_norms(void **state)
{
    (void)state;
    static const norm_case cases[] = {
        {512, 32, 16, 16, 0, false}, {256, 32, 33, 17, 0, true},
        {128, 32, 64, 50, 1, true},  {96, 32, 21, 19, 0, false},
        {192, 32, 9, 40, -3, true},  {384, 32, 13, 8, 0, false},
        {256, 4, 12, 12, 0, false},  {12, 3, 7, 5, 0, true},
        {12, 4, 1, 1, 0, false},     {128, 32, 300, 300, 0.5F, false},
        {1024, 32, 5, 3, 0, false},  {8, 1, 100, 3, 0, false}};
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            one_group_norm(types[t], &cases[i]);
}

//  A mean a hundred times the spread: the difference of sums of squares in fp32 would be
//  wrong in the third digit.
static void group_norm_far_from_zero(void **state)
{
    (void)state;
    const norm_case far = {64, 32, 120, 90, 200.0F, false};
    one_group_norm(GPU_FP32, &far);
}

static void one_rms_norm(gpu_type type, int channels, int height, int width, gpu_act act)
{
    subject x = new_subject(type, channels, height, width, 4.0F, 0.0F);
    const size_t n = (size_t)channels, pixels = gpu_pixels(&x.extent);
    float *weight = random_floats(n, 1.0F, 0.0F), *dw = to_device(weight, n * 4);
    double *wanted = doubles(x.count);
    for (size_t p = 0; p < pixels; p++) {
        double squares = 0.0;
        for (size_t c = 0; c < n; c++)
            squares += (double)x.values[c * pixels + p] * x.values[c * pixels + p];
        const double scale = sqrt((double)n) / fmax(sqrt(squares), 1e-12);
        for (size_t c = 0; c < n; c++)
            wanted[c * pixels + p] =
                act_of(act, x.values[c * pixels + p] * scale * weight[c]);
    }
    ok(gpu_rms_norm(&x.extent, 1e-12F, dw, act, x.device, x.device, NULL));
    compare_device("rms norm", &x.extent, x.device, wanted);
    check_room(&x.extent, x.device);
    ok(cudaFree(dw));
    free(weight);
    free(wanted);
    free_subject(&x);
}

static void rms_norms(void **state)
{
    (void)state;
    static const int channels[] = {5, 16, 96, 192, 384, 700};
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
            one_rms_norm(types[t], channels[i], 1 + (int)random_below(30),
                         1 + (int)random_below(30), i % 2 ? GPU_SILU : GPU_LINEAR);
}

//  ---- softmax -----------------------------------------------------------------------

static void one_softmax(gpu_type from, gpu_type to, size_t rows, size_t count,
                        float spread)
{
    //  The scores as a value of `rows` pixels: rows of channels.
    subject x = new_subject(from, (int)count, 1, (int)rows, spread, 0.0F);
    const gpu_extent result = {to, (int)count, 1, (int)rows};
    void *y = device_room(gpu_bytes(&result));
    double *wanted = doubles(x.count);
    for (size_t r = 0; r < rows; r++) {
        double most = -INFINITY, sum = 0.0;
        for (size_t i = 0; i < count; i++) most = fmax(most, x.values[i * rows + r]);
        for (size_t i = 0; i < count; i++) sum += exp(x.values[i * rows + r] - most);
        for (size_t i = 0; i < count; i++)
            wanted[i * rows + r] = exp(x.values[i * rows + r] - most) / sum;
    }
    ok(gpu_softmax(from, x.device, to, y, rows, count, NULL));
    float *is = planes_of(&result, y);
    for (size_t i = 0; i < x.count; i++)
        if (!(fabs(is[i] - wanted[i]) <=
              (to == GPU_BF16 ? 5e-3 : 1e-3) * wanted[i] + 1e-7))
            fail_msg("softmax of %zu: %g, not %g", count, (double)is[i], wanted[i]);
    check_room(&result, y);
    ok(cudaFree(y));
    free(is);
    free(wanted);
    free_subject(&x);
}

static void softmaxes(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 7, 64, 777, 4096, 5001};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        one_softmax(GPU_FP16, GPU_FP16, 1 + random_below(20), counts[i], 20.0F);
        one_softmax(GPU_FP32, GPU_BF16, 1 + random_below(20), counts[i], 60.0F);
        one_softmax(GPU_FP32, GPU_FP32, 1 + random_below(20), counts[i], 90.0F);
    }
}

//  ---- convolutions --------------------------------------------------------------------

typedef struct conv_case {
    int in, out, kernel, height, width;
    bool bias, residual, relu;
} conv_case;

//  x[pixel's neighbour] with zeros around.
static double tap(const float *x, const gpu_extent *e, int channel, int row, int column)
{
    if (row < 0 || row >= e->height || column < 0 || column >= e->width) return 0.0;
    return x[((size_t)channel * (size_t)e->height + (size_t)row) * (size_t)e->width +
             (size_t)column];
}

static void conv_definition(const float *x, const gpu_extent *e, const float *weight,
                            int out, int k, double *wanted)
{
    for (int o = 0; o < out; o++)
        for (int row = 0; row < e->height; row++)
            for (int column = 0; column < e->width; column++) {
                double sum = 0.0;
                for (int i = 0; i < e->channels; i++)
                    for (int t = 0; t < k * k; t++)
                        sum += (double)weight[(o * e->channels + i) * k * k + t] *
                               tap(x, e, i, row + t / k - k / 2, column + t % k - k / 2);
                *wanted++ = sum;
            }
}

//  A weight as the device holds it: rounded to its type.
static float *rounded_weight(gpu_type type, size_t count, float spread)
{
    subject w = new_subject(type, 1, 1, (int)count, spread, 0.0F);
    float *values = w.values;
    ok(cudaFree(w.device));
    return values;
}

static void one_conv_plain(gpu_type type, const conv_case *c)
{
    subject x = new_subject(type, c->in, c->height, c->width, 1.0F, 0.0F);
    subject r = new_subject(type, c->out, c->height, c->width, 1.0F, 0.0F);
    const size_t taps = (size_t)(c->kernel * c->kernel);
    float *weight = rounded_weight(type, (size_t)(c->in * c->out) * taps, 0.2F);
    float *bias = floats(gpu_room((size_t)c->out));
    for (int o = 0; o < c->out; o++) bias[o] = random_float();
    float *db = to_device(bias, gpu_room((size_t)c->out) * 4);
    gpu_device device = {.index = 0};
    luna_weight item = {.name = "w",
                        .dtype = LUNA_DTYPE_F32,
                        .data = weight,
                        .count = (size_t)(c->in * c->out) * taps};
    luna_weights weights = {.count = 1};
    weights.item[0] = item;
    gpu_lane lane = {.device = &device, .type = type, .weights = &weights};
    const luna_node node = {
        .weight = 0, .channels = (size_t)c->out, .kernel = (size_t)c->kernel};
    const void *dw = NULL;
    assert_int_equal(gpu_lane_weight(&lane, &node, (size_t)c->in, GPU_FORM_CONV, 0, &dw),
                     LUNA_OK);
    void *y = device_room(gpu_bytes(&r.extent));
    const gpu_conv_args args = {x.extent,
                                c->out,
                                c->kernel,
                                dw,
                                c->bias ? db : NULL,
                                c->residual ? r.device : NULL,
                                c->relu ? GPU_RELU : GPU_LINEAR};
    double *wanted = doubles(r.count);
    const size_t pixels = gpu_pixels(&x.extent);
    conv_definition(x.values, &x.extent, weight, c->out, c->kernel, wanted);
    for (size_t i = 0; i < r.count; i++) {
        wanted[i] +=
            (c->bias ? bias[i / pixels] : 0.0F) + (c->residual ? r.values[i] : 0.0F);
        if (c->relu && wanted[i] < 0.0) wanted[i] = 0.0;
    }
    ok(gpu_conv_plain(&args, x.device, y, NULL));
    compare_device("conv plain", &r.extent, y, wanted);
    check_room(&r.extent, y);
    ok(cudaFree(y));
    ok(cudaFree(db));
    gpu_lane_free(&lane);
    free(wanted);
    free(bias);
    free(weight);
    free_subject(&x);
    free_subject(&r);
}

static void plain_convolutions(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 12; i++) {
            const conv_case c = {1 + (int)random_below(70),
                                 1 + (int)random_below(90),
                                 i % 2 ? 3 : 1,
                                 1 + (int)random_below(20),
                                 1 + (int)random_below(20),
                                 i & 2,
                                 i & 4,
                                 i & 8};
            one_conv_plain(types[t], &c);
        }
}

static void one_conv_last(gpu_type type, int in, int out, int height, int width,
                          gpu_act act, bool with_pairs)
{
    gpu_pair *dp = NULL;
    subject x = new_subject(type, in, height, width, 2.0F, 0.0F);
    gpu_pair *pairs = random_pairs(in, &dp);
    const size_t pixels = gpu_pixels(&x.extent);
    float *weight = rounded_weight(type, (size_t)(in * out) * 9, 0.2F);
    float *bias = random_floats((size_t)out, 1.0F, 0.0F);
    float *db = to_device(bias, (size_t)out * 4);
    const size_t bytes = gpu_conv_last_bytes(in);
    void *fragments = malloc(bytes);
    assert_non_null(fragments);
    gpu_conv_last_pack(type, weight, out, in, fragments);
    void *df = to_device(fragments, bytes);
    for (size_t i = 0; i < x.count; i++) {
        const gpu_pair pair = with_pairs ? pairs[i / pixels] : (gpu_pair){1.0F, 0.0F};
        x.values[i] = (float)act_of(act, (double)pair.scale * x.values[i] + pair.offset);
    }
    double *wanted = doubles((size_t)out * pixels);
    conv_definition(x.values, &x.extent, weight, out, 3, wanted);
    for (size_t i = 0; i < (size_t)out * pixels; i++) wanted[i] += bias[i / pixels];
    const gpu_last_args args = {x.extent, out, df, db, with_pairs ? dp : NULL, act};
    float *planes = device_room((size_t)out * pixels * 4);
    //  Few multiprocessors, so that a warp goes down many rows; then many.
    ok(gpu_conv_last(&args, x.device, planes, 1, NULL));
    float *is = from_device(planes, (size_t)out * pixels);
    ok(cudaMemset(planes, 0xff, (size_t)out * pixels * 4));
    ok(gpu_conv_last(&args, x.device, planes, 132, NULL));
    float *again = from_device(planes, (size_t)out * pixels);
    assert_memory_equal(is, again, (size_t)out * pixels * 4);
    const gpu_extent result = {type, out, height, width};
    compare("conv last", &result, is, wanted);
    void *gone[] = {dp, db, df, planes};
    for (int i = 0; i < 4; i++) ok(cudaFree(gone[i]));
    void *lost[] = {pairs, weight, bias, fragments, wanted, is, again};
    for (int i = 0; i < 7; i++) free(lost[i]);
    free_subject(&x);
}

static void last_convolutions(void **state)
{
    (void)state;
    static const int in[] = {8, 24, 64, 96, 128};
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 10; i++)
            one_conv_last(types[t], in[i % 5], 1 + (int)random_below(GPU_LAST_CHANNELS),
                          1 + (int)random_below(40), 1 + (int)random_below(70),
                          i % 3 ? GPU_SILU : GPU_LINEAR, i % 2);
}

//  ---- pixels --------------------------------------------------------------------------

static void one_pixels(luna_pixels_format format, luna_pixels_rule rule,
                       luna_pixels_range range)
{
    const luna_vae_shape shape = {1, 3, 17, 23};
    const size_t count = 3 * 17 * 23, bytes = luna_pixels_bytes(&shape, 1, format);
    float *planes = random_floats(count, 1.6F, 0.0F);
    //  Values between two bytes, and just beside them.
    for (size_t i = 0; i < 256; i++) planes[i] = (float)i / 127.5F - 1.0F;
    const luna_vae_target target = {.format = format, .rule = rule};
    uint8_t *wanted = malloc(bytes), *is = malloc(bytes);
    assert_non_null(wanted);
    assert_non_null(is);
    luna_pixels_convert(planes, &shape, range, &target, wanted);
    const gpu_pixel_args args = {.channels = 3,
                                 .pixels = 17 * 23,
                                 .unit = range == LUNA_RANGE_UNIT,
                                 .raw = rule == LUNA_PIXELS_RAW,
                                 .round = rule == LUNA_PIXELS_ROUND,
                                 .interleaved = format == LUNA_PIXELS_F32,
                                 .bytes = format == LUNA_PIXELS_U8};
    float *dp = to_device(planes, count * 4);
    void *to = device_room(bytes);
    int zero = 0, bad = 0, *flag = to_device(&zero, sizeof zero);
    ok(gpu_pixels_convert(&args, dp, to, flag, NULL));
    ok(cudaMemcpy(is, to, bytes, cudaMemcpyDeviceToHost));
    ok(cudaMemcpy(&bad, flag, sizeof bad, cudaMemcpyDeviceToHost));
    assert_memory_equal(is, wanted, bytes);
    assert_int_equal(bad, 0);
    planes[random_below(count)] = rule == LUNA_PIXELS_RAW ? INFINITY : NAN;
    ok(cudaMemcpy(dp, planes, count * 4, cudaMemcpyHostToDevice));
    ok(gpu_pixels_convert(&args, dp, to, flag, NULL));
    ok(cudaMemcpy(&bad, flag, sizeof bad, cudaMemcpyDeviceToHost));
    assert_int_equal(bad, 1);
    ok(cudaFree(dp));
    ok(cudaFree(to));
    ok(cudaFree(flag));
    free(planes);
    free(wanted);
    free(is);
}

static void pixels(void **state)
{
    (void)state;
    for (int format = LUNA_PIXELS_F32_PLANAR; format <= LUNA_PIXELS_U8; format++)
        for (int rule = LUNA_PIXELS_TRUNCATE; rule <= LUNA_PIXELS_RAW; rule++)
            for (int range = 0; range < 2; range++)
                if (format != LUNA_PIXELS_U8 || rule != LUNA_PIXELS_RAW)
                    one_pixels((luna_pixels_format)format, (luna_pixels_rule)rule,
                               (luna_pixels_range)range);
}

//  ---- the fused convolution ----------------------------------------------------------

typedef struct fused_case {
    gpu_type type;
    int from, beside, to, height, width;
    bool folded, norm, residual;
    float spread;  //  of x
} fused_case;

typedef struct fused_data {
    subject x, beside, residual;
    float *weight, *shortcut, *bias;
    gpu_pair *pairs;
    gpu_fused_args args;
    gpu_extent result;
    gpu_parts parts;
    void *y;
} fused_data;

static void *pack_fused(const fused_case *c, const fused_data *d)
{
    const gpu_fused_weights weights = {.from = c->from,
                                       .beside = c->beside,
                                       .to = c->to,
                                       .folded = c->folded,
                                       .weight = d->weight,
                                       .shortcut = d->shortcut};
    const size_t bytes = gpu_fused_weight_bytes(&weights);
    void *packed = malloc(bytes);
    assert_non_null(packed);
    gpu_fused_pack(c->type, &weights, packed);
    void *device = to_device(packed, bytes);
    free(packed);
    return device;
}

static fused_data new_fused(const fused_case *c)
{
    fused_data d = {.parts = {c->height, c->width, c->folded}};
    const int grow = c->folded ? 2 : 1, beside = c->beside ? c->beside : 8;
    const size_t parts = gpu_part_count(&d.parts) * (size_t)c->to / GPU_PART_CHANNELS;
    gpu_pair *pairs = NULL;
    d.result = (gpu_extent){c->type, c->to, grow * c->height, grow * c->width};
    d.x = new_subject(c->type, c->from, c->height, c->width, c->spread, 0.5F);
    d.beside = new_subject(c->type, beside, c->height, c->width, 1.0F, 0.0F);
    d.residual = new_subject(c->type, c->to, d.result.height, d.result.width, 3.0F, 5.0F);
    d.weight = random_floats((size_t)c->to * (size_t)c->from * 9,
                             1.0F / sqrtf(9.0F * (float)c->from), 0.0F);
    d.shortcut =
        random_floats((size_t)c->to * (size_t)beside, 1.0F / sqrtf((float)beside), 0.0F);
    d.bias = random_floats((size_t)c->to, 1.0F, 0.0F);
    d.pairs = random_pairs(c->from, &pairs);
    d.y = device_room(gpu_bytes(&d.result));
    d.args = (gpu_fused_args){.from = d.x.extent,
                              .channels = c->to,
                              .folded = c->folded,
                              .pairs = c->norm ? pairs : NULL,
                              .weight = pack_fused(c, &d),
                              .bias = to_device(d.bias, (size_t)c->to * sizeof *d.bias),
                              .residual = c->residual ? d.residual.device : NULL,
                              .beside = c->beside ? d.beside.device : NULL,
                              .beside_channels = c->beside,
                              .parts = device_room(parts * sizeof(gpu_moments))};
    return d;
}

//  The value that the convolution reads, enlarged and activated, as the card rounds it.
static double fused_input(const fused_case *c, const fused_data *d, int channel, int y,
                          int x)
{
    if (y < 0 || x < 0 || y >= d->result.height || x >= d->result.width) return 0.0;
    const int grow = c->folded ? 2 : 1;
    const size_t at =
        ((size_t)channel * (size_t)c->height + (size_t)(y / grow)) * (size_t)c->width +
        (size_t)(x / grow);
    const double v = d->x.values[at];
    return c->norm
               ? act_of(GPU_SILU, d->pairs[channel].scale * v + d->pairs[channel].offset)
               : v;
}

static double fused_value(const fused_case *c, const fused_data *d, int channel, int y,
                          int x)
{
    const size_t pixel = (size_t)y * (size_t)d->result.width + (size_t)x;
    const size_t pixels = gpu_pixels(&d->result);
    double sum = d->bias[channel];
    for (int i = 0; i < c->from; i++)
        for (int tap = 0; tap < 9; tap++)
            sum += (double)d->weight[((size_t)channel * (size_t)c->from + (size_t)i) * 9 +
                                     (size_t)tap] *
                   fused_input(c, d, i, y + tap / 3 - 1, x + tap % 3 - 1);
    for (int i = 0; i < c->beside; i++)
        sum += (double)d->shortcut[(size_t)channel * (size_t)c->beside + (size_t)i] *
               d->beside.values[(size_t)i * pixels + pixel];
    return c->residual ? sum + d->residual.values[(size_t)channel * pixels + pixel] : sum;
}

//  All borders and a sample of the rest: the definition in double is slow.
static void compare_fused(const fused_case *c, const fused_data *d, const float *is)
{
    const int height = d->result.height, width = d->result.width;
    const size_t pixels = gpu_pixels(&d->result);
    for (int i = 0; i < 3000; i++) {
        const int channel = (int)random_below((size_t)c->to);
        int y = (int)random_below((size_t)height), x = (int)random_below((size_t)width);
        if (i % 4 == 0) y = i % 8 ? 0 : height - 1;
        if (i % 5 == 0) x = i % 10 ? 0 : width - 1;
        const double wanted = fused_value(c, d, channel, y, x);
        const double got =
            is[(size_t)channel * pixels + (size_t)y * (size_t)width + (size_t)x];
        if (!(fabs(got - wanted) <= tolerance(c->type) * 4.0 * (double)c->spread))
            fail_msg(
                "fused %s %d+%d to %d, %dx%d%s: channel %d at %d, %d is %.7g, not %.7g",
                type_names[c->type], c->from, c->beside, c->to, c->height, c->width,
                c->folded ? " folded" : "", channel, y, x, got, wanted);
    }
}

//  The norm by the statistics that were left is the norm by the value itself.
static void compare_parts(const fused_case *c, const fused_data *d)
{
    const size_t room = (size_t)c->to;
    float *ones = random_floats(room, 0.0F, 1.0F),
          *device = to_device(ones, room * sizeof *ones);
    const gpu_norm norm = {.from = d->result,
                           .groups = c->to / 16,
                           .epsilon = 1e-6F,
                           .weight = device,
                           .bias = device};
    void *scratch = device_room(gpu_norm_scratch(&norm));
    gpu_pair *pairs[2];
    float *is[2];
    for (int i = 0; i < 2; i++) pairs[i] = device_room(room * sizeof(gpu_pair));
    ok(gpu_norm_pairs(&norm, d->y, scratch, pairs[0], NULL));
    ok(gpu_norm_pairs_of_parts(&norm, &d->parts, d->args.parts, pairs[1], NULL));
    for (int i = 0; i < 2; i++) is[i] = from_device(pairs[i], 2 * room);
    for (size_t i = 0; i < 2 * room; i++)
        if (!(fabs((double)is[0][i] - is[1][i]) <= 1e-4 * (1.0 + fabs((double)is[0][i]))))
            fail_msg("pair %zu of the parts is %.7g, of the value %.7g", i / 2,
                     (double)is[1][i], (double)is[0][i]);
    for (int i = 0; i < 2; i++) {
        free(is[i]);
        ok(cudaFree(pairs[i]));
    }
    ok(cudaFree(scratch));
    ok(cudaFree(device));
    free(ones);
}

static void free_fused(fused_data *d)
{
    const void *device[] = {d->args.pairs, d->args.weight, d->args.bias, d->args.parts,
                            d->y};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        ok(cudaFree((void *)(uintptr_t)device[i]));
    free_subject(&d->x);
    free_subject(&d->beside);
    free_subject(&d->residual);
    free(d->weight);
    free(d->shortcut);
    free(d->bias);
    free(d->pairs);
}

static void one_fused(const fused_case *c)
{
    fused_data d = new_fused(c);
    float *first = NULL;
    for (int i = 0; i < 3; i++) {
        //  Few blocks, so that each goes through several tiles.
        ok(gpu_conv_wgmma(&d.args, d.x.device, d.y, i == 0 ? 2 : 132, NULL));
        float *is = planes_of(&d.result, d.y);
        if (first)
            assert_memory_equal(is, first,
                                gpu_pixels(&d.result) * (size_t)c->to * sizeof *is);
        else
            compare_fused(c, &d, is);
        free(first);
        first = is;
    }
    compare_parts(c, &d);
    free(first);
    free_fused(&d);
}

static void fused(void **state)
{
    (void)state;
    struct cudaDeviceProp card;
    ok(cudaGetDeviceProperties(&card, 0));
    if (card.major != 9) {
        print_message("the card has no fused convolution\n");
        skip();
    }
    for (int i = 0; i < 16; i++) {
        const fused_case c = {.type = types[i % 2],
                              .from = 64 * (1 + (int)random_below(4)),
                              .beside = i % 3 == 0 ? 64 * (1 + (int)random_below(4)) : 0,
                              .to = 128 * (1 + (int)random_below(2)),
                              .height = 1 + (int)random_below(70),
                              .width = 1 + (int)random_below(70),
                              .folded = i % 3 == 1,
                              .norm = i % 4 != 1,
                              .residual = i % 4 > 1,
                              .spread = i % 5 == 4 ? 200.0F : 2.0F};
        one_fused(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applies),
        cmocka_unit_test(adds),
        cmocka_unit_test(moves),
        cmocka_unit_test(group_norms),
        cmocka_unit_test(group_norm_far_from_zero),
        cmocka_unit_test(rms_norms),
        cmocka_unit_test(softmaxes),
        cmocka_unit_test(plain_convolutions),
        cmocka_unit_test(last_convolutions),
        cmocka_unit_test(pixels),
        cmocka_unit_test(fused),
    };
    fresh_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
