//  A 3x3 convolution, band by band: rows of its input are worked out once, into a buffer
//  with a border of zeros; the threads then take tiles from there to points, through the
//  matrix products, and back to rows of the result. Tiles begin at multiples of CPU_TILE
//  wherever the bands do.

#include "decoder/vae/cpu/cpu.h"

#include <string.h>

typedef struct band {
    cpu_run *r;
    const cpu_pass *pass;
    const luna_node *conv;
    const cpu_value *from;
    const cpu_value *to;
    size_t first;   //  row of the picture
    size_t rows;    //  of the result in this band
    size_t across;  //  tiles side by side
    size_t begun;   //  rows of the source that the band before has left
} band;

static size_t tiles_across(size_t width)
{
    return (width + CPU_TILE - 1) / CPU_TILE;
}

//  A row of the source: what its tiles reach, in floats.
static size_t source_row(const cpu_value *from)
{
    return (tiles_across(from->shape.width) * CPU_TILE + 2) * from->channels;
}

static const cpu_value *source_of(const luna_plan *plan, const cpu_pass *pass)
{
    return &plan->value[plan->graph->node[pass->conv].input[0]];
}

size_t cpu_bands_source(const luna_plan *plan, const cpu_pass *pass)
{
    return (pass->rows + 2) * source_row(source_of(plan, pass));
}

//  Strides that are no multiples of large powers of two: the points of a tile would all
//  meet in a few lines of the cache.
static size_t row_stride(size_t channels)
{
    return channels + CPU_LANES;
}

static size_t point_stride(size_t tiles, size_t channels)
{
    return tiles * row_stride(channels) + CPU_LANES;
}

size_t cpu_bands_work(const luna_plan *plan, const cpu_pass *pass)
{
    return CPU_POINTS * (point_stride(pass->tiles, source_of(plan, pass)->channels) +
                         point_stride(pass->tiles, plan->value[pass->node].channels));
}

static void fill_source(void *context, size_t item, size_t thread)
{
    const band *b = context;
    const size_t channels = b->from->channels, used = b->from->row_floats;
    const size_t row = b->begun + item, y = b->first + row - 1;
    float *out = cpu_area(b->r, b->pass, CPU_SOURCE) + row * source_row(b->from);
    if (y >= b->from->shape.height) {  //  above the first row as well: y has wrapped
        memset(out, 0, source_row(b->from) * sizeof *out);
        return;
    }
    memset(out, 0, channels * sizeof *out);
    cpu_row(b->r, (size_t)b->conv->input[0], y, cpu_work_of(b->r, b->pass, thread),
            out + channels);
    memset(out + channels + used, 0,
           (source_row(b->from) - channels - used) * sizeof *out);
}

static float *target_row(const band *b, size_t row)
{
    float *stored = cpu_row_stored(b->r, b->pass->node, b->first + row);
    if (stored) return stored;
    return cpu_area(b->r, b->pass, CPU_TARGET) + row * b->to->row_floats;
}

static bool other_is_stored(const band *b)
{
    return cpu_row_stored(b->r, (size_t)b->pass->other, 0) != NULL;
}

//  What is added to the convolution goes first, unless it can be read where it is.
static void fill_target(void *context, size_t item, size_t thread)
{
    const band *b = context;
    cpu_row(b->r, (size_t)b->pass->other, b->first + item,
            cpu_work_of(b->r, b->pass, thread), target_row(b, item));
}

static void finish_row(void *context, size_t item, size_t thread)
{
    (void)thread;
    const band *b = context;
    cpu_row_finish(b->r, b->pass, b->first + item, target_row(b, item));
}

//  A share of the tiles, and where their points are.
typedef struct share {
    const band *band;
    size_t first;
    size_t count;
    float *from;
    float *to;
} share;

static void tiles_to_points(const share *s)
{
    const band *b = s->band;
    const size_t channels = b->from->channels, row = source_row(b->from);
    const float *source = cpu_area(b->r, b->pass, CPU_SOURCE);
    for (size_t i = 0; i < s->count; i++) {
        const size_t y = (s->first + i) / b->across, x = (s->first + i) % b->across;
        b->r->kernels->tile_in(source + CPU_TILE * (y * row + x * channels), row,
                               channels, s->from + i * row_stride(channels),
                               point_stride(b->pass->tiles, channels));
    }
}

//  In a picture whose pixels are doubled, a patch is a b b c c d from side to side and
//  from top to bottom: with the point at -1, where the polynomial 1 + z vanishes, every
//  product is zero. 25 of the 36 are left, which is what folding the doubling into the
//  filters would leave.
static bool vanishes(const band *b, size_t point)
{
    enum { MINUS_ONE = 2 };
    const luna_op op = b->r->plan->graph->node[b->conv->input[0]].op;
    return op == LUNA_OP_UPSAMPLE &&
           (point / CPU_PATCH == MINUS_ONE || point % CPU_PATCH == MINUS_ONE);
}

static void multiply_points(const share *s)
{
    const band *b = s->band;
    const size_t depth = b->from->channels, columns = b->to->channels;
    const size_t matrix = cpu_panels(b->conv->channels) * depth * CPU_PANEL;
    const float *weights = b->r->state->weights.packed[b->conv->weight];
    for (size_t p = 0; p < CPU_POINTS; p++) {
        const cpu_product product = {
            .a = s->from + p * point_stride(b->pass->tiles, depth),
            .a_stride = row_stride(depth),
            .rows = s->count,
            .b = weights + p * matrix,
            .panel_stride = depth * CPU_PANEL,
            .depth = depth,
            .columns = columns,
            .c = s->to + p * point_stride(b->pass->tiles, columns),
            .c_stride = row_stride(columns)};
        if (vanishes(b, p))
            memset(product.c, 0, s->count * row_stride(columns) * sizeof *product.c);
        else
            b->r->kernels->product(&product);
    }
}

static const float *residual_at(const band *b, size_t row, float *out)
{
    if (b->pass->other == LUNA_NONE) return NULL;
    const float *stored = cpu_row_stored(b->r, (size_t)b->pass->other, b->first + row);
    return stored ? stored : out;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void points_to_tiles(const share *s)
{
    const band *b = s->band;
    const size_t channels = b->to->channels;
    for (size_t i = 0; i < s->count; i++) {
        const size_t y = (s->first + i) / b->across * CPU_TILE;
        const size_t x = (s->first + i) % b->across * CPU_TILE;
        float *out = target_row(b, y);
        const float *residual = residual_at(b, y, out);
        const cpu_tile tile = {
            .points = s->to + i * row_stride(channels),
            .point_stride = point_stride(b->pass->tiles, channels),
            .channels = channels,
            .bias = cpu_weights_vector(&b->r->state->weights, b->conv->bias),
            .residual = residual ? residual + x * channels : NULL,
            .out = out + x * channels,
            .row_stride = b->to->row_floats,
            .rows = least(CPU_TILE, b->rows - y),
            .columns = least(CPU_TILE, b->to->shape.width - x)};
        b->r->kernels->tile_out(&tile);
    }
}

static size_t tile_count(const band *b)
{
    return (b->rows + CPU_TILE - 1) / CPU_TILE * b->across;
}

static void convolve(void *context, size_t item, size_t thread)
{
    const band *b = context;
    const size_t tiles = b->pass->tiles, first = item * tiles;
    float *work = cpu_work_of(b->r, b->pass, thread) + b->pass->row_work;
    const share s = {.band = b,
                     .first = first,
                     .count = least(tiles, tile_count(b) - first),
                     .from = work,
                     .to = work + CPU_POINTS * point_stride(tiles, b->from->channels)};
    tiles_to_points(&s);
    multiply_points(&s);
    points_to_tiles(&s);
}

//  The last two rows of the band before are the first of this one.
static void keep_rows(band *b)
{
    const size_t row = source_row(b->from);
    float *source = cpu_area(b->r, b->pass, CPU_SOURCE);
    b->begun = b->first == 0 ? 0 : 2;
    if (b->begun) memmove(source, source + b->pass->rows * row, 2 * row * sizeof *source);
}

static void run_band(band *b)
{
    cpu_team *team = b->r->state->team;
    const size_t tiles = tile_count(b);
    const size_t rows = (b->rows + CPU_TILE - 1) / CPU_TILE * CPU_TILE + 2;
    keep_rows(b);
    cpu_team_run(team, rows - b->begun, fill_source, b);
    if (b->pass->other != LUNA_NONE && !other_is_stored(b))
        cpu_team_run(team, b->rows, fill_target, b);
    cpu_team_run(team, (tiles + b->pass->tiles - 1) / b->pass->tiles, convolve, b);
    cpu_team_run(team, b->rows, finish_row, b);
}

void cpu_bands_run(cpu_run *r, const cpu_pass *pass)
{
    const luna_plan *plan = r->plan;
    band b = {.r = r,
              .pass = pass,
              .conv = &plan->graph->node[pass->conv],
              .from = source_of(plan, pass),
              .to = &plan->value[pass->node],
              .across = tiles_across(plan->value[pass->node].shape.width)};
    const size_t height = b.to->shape.height;
    for (; b.first < height; b.first += pass->rows) {
        b.rows = least(pass->rows, height - b.first);
        run_band(&b);
        cpu_step(r);
    }
}
