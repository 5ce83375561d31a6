//  Attention without the table of all scores: keys and values are packed once, then each
//  thread takes a few rows of queries through them, a block of keys at a time. The
//  softmax goes along: whenever a block raises a query's largest score, what was summed
//  so far is scaled down to it (Milakov and Gimelshein, "Online normalizer calculation
//  for softmax", 2018). The order is fixed, and each query's alone.

#include "decoder/vae/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum { KEYS = 1024 };  //  in a block

typedef struct attention {
    cpu_run *r;
    const cpu_pass *pass;
    const luna_node *node;
    const cpu_value *value;
    size_t pixels;
    size_t first;  //  row of the picture that item 0 begins with
} attention;

static size_t pixels_of(const cpu_value *value)
{
    return value->shape.height * value->shape.width;
}

size_t cpu_attention_keys(const luna_plan *plan, const cpu_pass *pass)
{
    const cpu_value *value = &plan->value[pass->node];
    return cpu_panels(pixels_of(value)) * CPU_PANEL * value->channels;
}

//  Rows of a panel of values.
static size_t depth_of(size_t pixels)
{
    return cpu_padded(pixels);
}

size_t cpu_attention_values(const luna_plan *plan, const cpu_pass *pass)
{
    const cpu_value *value = &plan->value[pass->node];
    return cpu_panels(value->channels) * CPU_PANEL * depth_of(pixels_of(value));
}

//  Floats of a row of scores: no power of two.
static size_t score_stride(void)
{
    return KEYS + CPU_LANES;
}

//  A thread's part: rows, queries, results, scores, and two numbers a query.
size_t cpu_attention_work(const luna_plan *plan, const cpu_pass *pass)
{
    const cpu_value *value = &plan->value[pass->node];
    const size_t queries = cpu_padded(pass->rows * value->shape.width);
    return queries * (2 * value->channels + score_stride() + 2);
}

static void pack_key(const attention *a, size_t pixel, const float *key)
{
    const size_t channels = a->value->channels;
    float *out = cpu_area(a->r, a->pass, CPU_KEYS) +
                 pixel / CPU_PANEL * channels * CPU_PANEL + pixel % CPU_PANEL;
    for (size_t c = 0; c < channels; c++) out[c * CPU_PANEL] = key ? key[c] : 0.0F;
}

static void pack_value(const attention *a, size_t pixel, const float *value)
{
    const size_t channels = a->value->channels, depth = depth_of(a->pixels);
    float *out = cpu_area(a->r, a->pass, CPU_VALUES) + pixel * CPU_PANEL;
    for (size_t c = 0; c < channels; c++)
        out[c / CPU_PANEL * depth * CPU_PANEL + c % CPU_PANEL] = value ? value[c] : 0.0F;
}

static void pack_row(void *context, size_t y, size_t thread)
{
    const attention *a = context;
    const size_t width = a->value->shape.width, channels = a->value->channels;
    float *work = cpu_work_of(a->r, a->pass, thread), *row = work + a->pass->row_work;
    cpu_row(a->r, (size_t)a->node->input[1], y, work, row);
    for (size_t x = 0; x < width; x++) pack_key(a, y * width + x, row + x * channels);
    cpu_row(a->r, (size_t)a->node->input[2], y, work, row);
    for (size_t x = 0; x < width; x++) pack_value(a, y * width + x, row + x * channels);
}

static void pack_rest(const attention *a)
{
    const size_t panels = cpu_panels(a->pixels) * CPU_PANEL;
    for (size_t i = a->pixels; i < panels; i++) pack_key(a, i, NULL);
    for (size_t i = a->pixels; i < depth_of(a->pixels); i++) pack_value(a, i, NULL);
}

//  Some rows of queries.
typedef struct chunk {
    const attention *a;
    size_t y;
    size_t rows;
    size_t count;  //  queries
    float *queries;
    float *scores;
    float *max;
    float *sum;
    float *out;
} chunk;

static void score(const chunk *c, size_t key, size_t keys)
{
    const size_t channels = c->a->value->channels;
    const cpu_product product = {
        .a = c->queries,
        .a_stride = channels,
        .rows = c->count,
        .b = cpu_area(c->a->r, c->a->pass, CPU_KEYS) + key * channels,
        .panel_stride = channels * CPU_PANEL,
        .depth = channels,
        .columns = cpu_padded(keys),
        .c = c->scores,
        .c_stride = score_stride()};
    c->a->r->kernels->product(&product);
}

//  Keys that fill up the last lanes get no weight.
static void weigh(const chunk *c, size_t keys)
{
    const size_t channels = c->a->value->channels;
    const float scale = 1.0F / sqrtf((float)c->a->node->channels);
    for (size_t i = 0; i < c->count; i++) {
        float *scores = c->scores + i * score_stride();
        for (size_t k = keys; k < cpu_padded(keys); k++) scores[k] = -1e30F;
        const float before = c->a->r->kernels->softmax(scores, cpu_padded(keys), scale,
                                                       &c->max[i], &c->sum[i]);
        c->a->r->kernels->multiply(c->out + i * channels, channels, before);
    }
}

static void gather(const chunk *c, size_t key, size_t keys)
{
    const size_t channels = c->a->value->channels;
    const cpu_product product = {
        .a = c->scores,
        .a_stride = score_stride(),
        .rows = c->count,
        .b = cpu_area(c->a->r, c->a->pass, CPU_VALUES) + key * CPU_PANEL,
        .panel_stride = depth_of(c->a->pixels) * CPU_PANEL,
        .depth = cpu_padded(keys),
        .columns = channels,
        .c = c->out,
        .c_stride = channels,
        .add = true};
    c->a->r->kernels->product(&product);
}

static void begin(const chunk *c, float *work)
{
    const size_t row = c->a->value->row_floats;
    memset(c->out, 0, c->rows * row * sizeof *c->out);
    for (size_t i = 0; i < c->count; i++) {
        c->max[i] = -1e30F;
        c->sum[i] = 0.0F;
    }
    for (size_t i = 0; i < c->rows; i++)
        cpu_row(c->a->r, (size_t)c->a->node->input[0], c->y + i, work,
                c->queries + i * row);
}

static void end(const chunk *c)
{
    const size_t channels = c->a->value->channels, row = c->a->value->row_floats;
    for (size_t i = 0; i < c->count; i++)
        c->a->r->kernels->multiply(c->out + i * channels, channels, 1.0F / c->sum[i]);
    for (size_t i = 0; i < c->rows; i++)
        cpu_row_finish(c->a->r, c->a->pass, c->y + i, c->out + i * row);
}

static void attend(void *context, size_t item, size_t thread)
{
    const attention *a = context;
    float *work = cpu_work_of(a->r, a->pass, thread);
    const size_t y = a->first + item * a->pass->rows, height = a->value->shape.height;
    const size_t room = cpu_padded(a->pass->rows * a->value->shape.width);
    chunk c = {.a = a, .y = y, .queries = work + a->pass->row_work};
    c.rows = height - y < a->pass->rows ? height - y : a->pass->rows;
    c.count = c.rows * a->value->shape.width;
    c.scores = c.queries + 2 * room * a->value->channels;
    c.max = c.scores + room * score_stride();
    c.sum = c.max + room;
    c.out = cpu_row_stored(a->r, a->pass->node, y);
    if (!c.out) c.out = c.queries + room * a->value->channels;
    begin(&c, work);
    for (size_t key = 0; key < a->pixels; key += KEYS) {
        const size_t keys = a->pixels - key < KEYS ? a->pixels - key : KEYS;
        score(&c, key, keys);
        weigh(&c, keys);
        gather(&c, key, keys);
    }
    end(&c);
}

//  A few chunks a thread: a watchdog wants to see them go by.
size_t cpu_attention_step(const luna_plan *plan, const cpu_pass *pass)
{
    enum { CHUNKS = 4 };
    return CHUNKS * plan->threads * pass->rows;
}

void cpu_attention_run(cpu_run *r, const cpu_pass *pass)
{
    const cpu_value *value = &r->plan->value[pass->node];
    attention a = {.r = r,
                   .pass = pass,
                   .node = &r->plan->graph->node[pass->node],
                   .value = value,
                   .pixels = pixels_of(value)};
    const size_t height = value->shape.height;
    const size_t once = cpu_attention_step(r->plan, pass);
    cpu_team_run(r->state->team, height, pack_row, &a);
    pack_rest(&a);
    for (; a.first < height; a.first += once) {
        const size_t left = height - a.first, rows = left < once ? left : once;
        cpu_team_run(r->state->team, (rows + pass->rows - 1) / pass->rows, attend, &a);
        cpu_step(r);
    }
}
