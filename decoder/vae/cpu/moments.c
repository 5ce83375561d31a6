//  Statistics of group norms in one pass, merged without cancellation and in one order:
//  a channel's over a run of pixels, a group's over the run, then run by run and row by
//  row (Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
//  Computing Sample Variances", 1979).

#include "decoder/vae/cpu/cpu.h"

#include <math.h>

typedef struct moment {
    double mean;
    double squares;  //  sum of squared distances from the mean
    double count;
} moment;

enum { DOUBLES = 2 };  //  kept of a group's moment in a row

static void merge(moment *a, const moment *b)
{
    const double count = a->count + b->count, off = b->mean - a->mean;
    a->squares += b->squares + off * off * (a->count / count) * b->count;
    a->mean += off * (b->count / count);
    a->count = count;
}

//  The moment of a group of channels that have each `pixels` values.
static moment group_of(const float *mean, const float *squares, size_t channels,
                       size_t pixels)
{
    moment m = {.count = (double)(channels * pixels)};
    for (size_t i = 0; i < channels; i++) m.mean += mean[i];
    m.mean /= (double)channels;
    for (size_t i = 0; i < channels; i++) {
        const double off = mean[i] - m.mean;
        m.squares += squares[i] + off * off * (double)pixels;
    }
    return m;
}

//  The group norms that read `node` follow it in the graph.
static bool reads(const luna_plan *plan, size_t norm, size_t node)
{
    const luna_node *n = &plan->graph->node[norm];
    return n->op == LUNA_OP_GROUP_NORM && n->input[0] == (int)node;
}

static size_t statistics_count(const luna_plan *plan, size_t node)
{
    size_t count = 0;
    for (size_t i = node + 1; i < plan->graph->count; i++)
        if (reads(plan, i, node)) count += DOUBLES * plan->graph->node[i].groups;
    const size_t line = LUNA_MEMORY_ALIGN / sizeof(double);
    return (count + line - 1) / line * line;
}

size_t cpu_moments_row(const luna_plan *plan, size_t node)
{
    const size_t count = statistics_count(plan, node);
    return count ? count + plan->value[node].channels : 0;
}

static void take_run(const luna_node *norm, const float *mean, const float *squares,
                     size_t pixels, size_t before, double *row)
{
    const size_t width = norm->channels / norm->groups;
    for (size_t g = 0; g < norm->groups; g++) {
        moment all = {.mean = row[DOUBLES * g],
                      .squares = row[DOUBLES * g + 1],
                      .count = (double)(before * width)};
        const moment run = group_of(mean + g * width, squares + g * width, width, pixels);
        merge(&all, &run);
        row[DOUBLES * g] = all.mean;
        row[DOUBLES * g + 1] = all.squares;
    }
}

static void take(const cpu_run *r, const luna_node *norm, const cpu_value *value,
                 const float *from, float *mean, double *row)
{
    const size_t width = value->shape.width;
    float *squares = mean + value->channels;
    for (size_t i = 0; i < DOUBLES * norm->groups; i++) row[i] = 0.0;
    for (size_t x = 0; x < width; x += CPU_RUN) {
        const size_t pixels = width - x < CPU_RUN ? width - x : CPU_RUN;
        r->kernels->moments(from + x * value->channels, pixels, value->channels, mean,
                            squares);
        take_run(norm, mean, squares, pixels, x, row);
    }
}

static double *row_at(const cpu_run *r, const cpu_pass *pass, size_t y)
{
    double *area = (double *)(void *)cpu_area(r, pass, CPU_MOMENTS);
    return area + y * cpu_moments_row(r->plan, pass->node);
}

void cpu_moments_take(const cpu_run *r, const cpu_pass *pass, size_t y, const float *row)
{
    const luna_plan *plan = r->plan;
    double *out = row_at(r, pass, y);
    float *channels = (float *)(void *)(out + statistics_count(plan, pass->node));
    for (size_t i = pass->node + 1; i < plan->graph->count; i++) {
        if (!reads(plan, i, pass->node)) continue;
        const luna_node *norm = &plan->graph->node[i];
        take(r, norm, &plan->value[pass->node], row, channels, out);
        out += DOUBLES * norm->groups;
    }
}

static moment whole(const cpu_run *r, const cpu_pass *pass, size_t at, double row_count)
{
    moment all = {0};
    for (size_t y = 0; y < r->plan->value[pass->node].shape.height; y++) {
        const double *row = row_at(r, pass, y) + at;
        const moment one = {.mean = row[0], .squares = row[1], .count = row_count};
        merge(&all, &one);
    }
    return all;
}

//  (x - mean) * scale + bias, with what a float cannot hold of the mean in the offset:
//  a mean far from zero then costs no digits.
static void set_channel(const cpu_run *r, const luna_node *norm, size_t channel,
                        const moment *m, cpu_value *value)
{
    const cpu_weights *w = &r->state->weights;
    const double gain = cpu_weights_vector(w, norm->weight)[channel] /
                        sqrt(m->squares / m->count + norm->epsilon);
    const double bias = cpu_weights_vector(w, norm->bias)[channel];
    float *shift = value->coefficients + channel;
    shift[0] = (float)m->mean;
    shift[value->channels] = (float)gain;
    shift[2 * value->channels] = (float)(bias - (m->mean - shift[0]) * gain);
}

static void finish(const cpu_run *r, const cpu_pass *pass, size_t norm_node, size_t at)
{
    const luna_node *norm = &r->plan->graph->node[norm_node];
    cpu_value *value = &r->plan->value[norm_node];
    const size_t width = norm->channels / norm->groups;
    for (size_t g = 0; g < norm->groups; g++) {
        const moment all =
            whole(r, pass, at + DOUBLES * g, (double)(width * value->shape.width));
        for (size_t i = 0; i < width; i++)
            set_channel(r, norm, g * width + i, &all, value);
    }
}

void cpu_moments_finish(const cpu_run *r, const cpu_pass *pass)
{
    size_t at = 0;
    const luna_plan *plan = r->plan;
    for (size_t i = pass->node + 1; i < plan->graph->count; i++) {
        if (!reads(plan, i, pass->node)) continue;
        finish(r, pass, i, at);
        at += DOUBLES * plan->graph->node[i].groups;
    }
}
