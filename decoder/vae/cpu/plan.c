#include "decoder/vae/cpu/cpu.h"

#include <stdlib.h>

static const luna_node *node_at(const luna_plan *plan, size_t node)
{
    return &plan->graph->node[node];
}

static bool is_wide_conv(const luna_plan *plan, int node)
{
    return node != LUNA_NONE && node_at(plan, (size_t)node)->op == LUNA_OP_CONV2D &&
           node_at(plan, (size_t)node)->kernel == 3;
}

//  ---- what is stored --------------------------------------------------------------

//  The convolution that an addition does along with it: one that nobody else reads. -1:
//  there is none.
static int added_conv(const luna_plan *plan, size_t node, const size_t *uses)
{
    const luna_node *n = node_at(plan, node);
    for (int k = 0; n->op == LUNA_OP_ADD && k < 2; k++)
        if (is_wide_conv(plan, n->input[k]) && uses[n->input[k]] == 1) return n->input[k];
    return LUNA_NONE;
}

static bool needs_place(const luna_plan *plan, size_t node, const size_t *uses)
{
    const luna_op op = node_at(plan, node)->op;
    if (op == LUNA_OP_ADD || op == LUNA_OP_ATTENTION) return true;
    if (op == LUNA_OP_CONV2D) return is_wide_conv(plan, (int)node) || uses[node] > 1;
    return false;
}

static void choose_stored(luna_plan *plan, const size_t *uses)
{
    const size_t count = plan->graph->count;
    for (size_t i = 0; i < count; i++) {
        const int conv = added_conv(plan, i, uses);
        if (needs_place(plan, i, uses)) plan->value[i].stored = true;
        if (conv != LUNA_NONE) plan->value[conv].stored = false;
        if (node_at(plan, i)->op == LUNA_OP_GROUP_NORM)
            plan->value[node_at(plan, i)->input[0]].stored = true;
    }
    plan->value[count - 1].stored = true;
}

//  ---- passes ----------------------------------------------------------------------

//  Bands of about so many bytes of input, tiles and queries so many at a time: enough to
//  read weights seldom. Where memory is short, less: SHARE bands, or all threads' tiles,
//  would then fill it. Nothing is worked out twice where two bands meet.
enum { SOURCE_BYTES = 16 << 20, TILES = 112, LEAST_TILES = 14, QUERIES = 96, SHARE = 16 };

static size_t up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static size_t within(size_t value, size_t low, size_t high)
{
    return value < low ? low : value > high ? high : value;
}

//  A fair share for each thread.
static size_t choose_tiles(const luna_plan *plan, const cpu_pass *pass, size_t tiles)
{
    const int input = node_at(plan, pass->conv)->input[0];
    const size_t channels =
        plan->value[input].channels + plan->value[pass->node].channels;
    const size_t bytes = plan->threads * CPU_POINTS * channels * sizeof(float);
    const size_t most = within(plan->room / SHARE / bytes, LEAST_TILES, TILES);
    const size_t shares = up((tiles + most - 1) / most, plan->threads);
    return (tiles + shares - 1) / shares;
}

static void size_band(const luna_plan *plan, cpu_pass *pass)
{
    const int input = node_at(plan, pass->conv)->input[0];
    const luna_shape *to = &plan->value[pass->node].shape;
    const size_t row_bytes = plan->value[input].row_floats * sizeof(float);
    const size_t bytes = within(plan->room / SHARE, 0, SOURCE_BYTES);
    const size_t rows = bytes / row_bytes / CPU_TILE * CPU_TILE;
    const size_t across = up(to->width, CPU_TILE) / CPU_TILE;
    pass->rows = within(rows, CPU_TILE, up(to->height, CPU_TILE));
    pass->tiles = choose_tiles(plan, pass, pass->rows / CPU_TILE * across);
}

static cpu_pass make_pass(const luna_plan *plan, size_t node, const size_t *uses)
{
    cpu_pass pass = {.kind = CPU_ROWS, .node = node, .conv = node, .other = LUNA_NONE};
    const luna_node *n = node_at(plan, node);
    const int conv = added_conv(plan, node, uses);
    if (conv != LUNA_NONE && !plan->value[conv].stored) {
        pass.conv = (size_t)conv;
        pass.other = n->input[0] == conv ? n->input[1] : n->input[0];
    }
    if (is_wide_conv(plan, (int)pass.conv)) pass.kind = CPU_BANDS;
    if (pass.kind == CPU_BANDS) size_band(plan, &pass);
    if (n->op == LUNA_OP_ATTENTION) {
        pass.kind = CPU_ATTENTION;
        pass.rows =
            (QUERIES + plan->value[node].shape.width - 1) / plan->value[node].shape.width;
    }
    return pass;
}

//  Floats for the rows that a pass works out.
static size_t row_work(const luna_plan *plan, const cpu_pass *pass)
{
    size_t most = 0;
    const luna_node *n = node_at(plan, pass->conv);
    if (pass->kind == CPU_ROWS) return cpu_row_work(plan, pass->node);
    const int reads[] = {n->input[0], n->input[1], n->input[2], pass->other};
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        if (reads[i] == LUNA_NONE || plan->value[reads[i]].stored) continue;
        const size_t work = cpu_row_work(plan, (size_t)reads[i]);
        if (work > most) most = work;
    }
    return most;
}

static size_t own_work(const luna_plan *plan, const cpu_pass *pass)
{
    if (pass->kind == CPU_BANDS) return cpu_bands_work(plan, pass);
    if (pass->kind == CPU_ATTENTION) return cpu_attention_work(plan, pass);
    return plan->value[pass->node].row_floats;
}

static void visit_from(const luna_plan *plan, size_t node,
                       void (*visit)(void *context, size_t node), void *context)
{
    for (int k = 0; k < LUNA_INPUTS; k++) {
        const int input = node_at(plan, node)->input[k];
        if (input == LUNA_NONE) continue;
        visit(context, (size_t)input);
        if (!plan->value[input].stored) visit_from(plan, (size_t)input, visit, context);
    }
}

void cpu_plan_visit(const luna_plan *plan, const cpu_pass *pass,
                    void (*visit)(void *context, size_t node), void *context)
{
    visit(context, pass->node);
    visit_from(plan, pass->node, visit, context);
}

static luna_err make_passes(luna_plan *plan, const size_t *uses)
{
    plan->passes = calloc(plan->graph->count, sizeof *plan->passes);
    if (!plan->passes)
        return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    for (size_t i = 0; i < plan->graph->count; i++) {
        if (!plan->value[i].stored) continue;
        cpu_pass pass = make_pass(plan, i, uses);
        pass.row_work = up(row_work(plan, &pass), CPU_LANES);
        pass.work = up(pass.row_work + own_work(plan, &pass), CPU_LANES);
        plan->passes[plan->pass_count++] = pass;
    }
    return LUNA_OK;
}

//  ---- places ----------------------------------------------------------------------

typedef struct life {
    luna_plan *plan;
    size_t now;
    size_t first[LUNA_GRAPH_MAX];
    size_t last[LUNA_GRAPH_MAX];  //  passes
} life;

static void note_read(void *context, size_t node)
{
    life *l = context;
    l->last[node] = l->now;
}

static void follow(life *l)
{
    for (l->now = 0; l->now < l->plan->pass_count; l->now++) {
        const cpu_pass *pass = &l->plan->passes[l->now];
        l->first[pass->node] = l->now;
        cpu_plan_visit(l->plan, pass, note_read, l);
    }
}

static int new_span(luna_plan *plan, size_t floats, size_t first, size_t last)
{
    if (floats == 0) return LUNA_NONE;
    plan->spans[plan->span_count] =
        (luna_span){.bytes = floats * sizeof(float), .first = first, .last = last};
    return (int)plan->span_count++;
}

static void place_areas(luna_plan *plan, size_t at)
{
    cpu_pass *pass = &plan->passes[at];
    const cpu_value *value = &plan->value[pass->node];
    size_t floats[CPU_AREAS] = {0};
    floats[CPU_WORK] = pass->work * plan->threads;
    floats[CPU_MOMENTS] = cpu_moments_row(plan, pass->node) * value->shape.height * 2;
    if (pass->kind == CPU_BANDS) floats[CPU_SOURCE] = cpu_bands_source(plan, pass);
    if (pass->kind == CPU_BANDS && (value->spilled || value->span == LUNA_NONE))
        floats[CPU_TARGET] = pass->rows * value->row_floats;
    if (pass->kind == CPU_ATTENTION) {
        floats[CPU_KEYS] = cpu_attention_keys(plan, pass);
        floats[CPU_VALUES] = cpu_attention_values(plan, pass);
    }
    for (int i = 0; i < CPU_AREAS; i++) pass->area[i] = new_span(plan, floats[i], at, at);
}

//  The picture itself goes to the caller's memory.
static void place_value(const life *l, size_t node)
{
    luna_plan *plan = l->plan;
    cpu_value *value = &plan->value[node];
    const size_t floats = value->row_floats * value->shape.height;
    value->span = LUNA_NONE;
    if (!value->stored || node + 1 == plan->graph->count) return;
    if (!value->spilled) {
        value->span = new_span(plan, floats, l->first[node], l->last[node]);
        return;
    }
    plan->file_spans[plan->file_span_count] = (luna_span){
        .bytes = floats * sizeof(float), .first = l->first[node], .last = l->last[node]};
    value->span = (int)plan->file_span_count++;
}

static luna_err place_all(const life *l)
{
    luna_plan *plan = l->plan;
    plan->span_count = plan->file_span_count = 0;
    for (size_t i = 0; i < plan->graph->count; i++) place_value(l, i);
    for (size_t i = 0; i < plan->pass_count; i++) place_areas(plan, i);
    LUNA_TRY(luna_memory_plan(plan->spans, plan->span_count, &plan->arena_bytes));
    return luna_memory_plan(plan->file_spans, plan->file_span_count, &plan->file_bytes);
}

//  The pass at which most is in memory.
static size_t fullest(const luna_plan *plan)
{
    size_t most = 0, at = 0;
    for (size_t i = 0; i < plan->pass_count; i++) {
        size_t bytes = 0;
        for (size_t k = 0; k < plan->span_count; k++)
            if (plan->spans[k].first <= i && i <= plan->spans[k].last)
                bytes += plan->spans[k].bytes;
        if (bytes <= most) continue;
        most = bytes;
        at = i;
    }
    return at;
}

//  The largest value in memory at that pass goes into the file; false: there is none.
static bool spill_one(const life *l)
{
    luna_plan *plan = l->plan;
    const size_t at = fullest(plan);
    cpu_value *largest = NULL;
    for (size_t i = 0; i < plan->graph->count; i++) {
        cpu_value *value = &plan->value[i];
        if (value->spilled || value->span == LUNA_NONE) continue;
        if (l->first[i] > at || l->last[i] < at) continue;
        const size_t bytes = plan->spans[value->span].bytes;
        if (largest && bytes <= plan->spans[largest->span].bytes) continue;
        largest = value;
    }
    if (largest) largest->spilled = true;
    return largest != NULL;
}

static luna_err place_within(const life *l)
{
    LUNA_TRY(place_all(l));
    while (l->plan->arena_bytes > l->plan->room && spill_one(l)) LUNA_TRY(place_all(l));
    return LUNA_OK;
}

//  ---- the whole -------------------------------------------------------------------

static void measure_values(luna_plan *plan, const luna_shape *shapes)
{
    for (size_t i = 0; i < plan->graph->count; i++) {
        cpu_value *value = &plan->value[i];
        *value = (cpu_value){.shape = shapes[i],
                             .channels = cpu_padded(shapes[i].channels),
                             .span = LUNA_NONE};
        value->row_floats = value->channels * shapes[i].width;
    }
}

static luna_err allocate(luna_plan *plan)
{
    const size_t count = plan->graph->count;
    plan->spans = calloc(count * (1 + CPU_AREAS), sizeof *plan->spans);
    plan->file_spans = calloc(count, sizeof *plan->file_spans);
    bool good = plan->spans && plan->file_spans;
    for (size_t i = 0; i < count && good; i++) {
        if (node_at(plan, i)->op != LUNA_OP_GROUP_NORM) continue;
        const size_t bytes =
            up(3 * plan->value[i].channels * sizeof(float), LUNA_MEMORY_ALIGN);
        plan->value[i].coefficients = aligned_alloc(LUNA_MEMORY_ALIGN, bytes);
        good = plan->value[i].coefficients != NULL;
        for (size_t k = 0; good && k < bytes / sizeof(float); k++)
            plan->value[i].coefficients[k] = 0.0F;
    }
    return good ? LUNA_OK
                : luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
}

static luna_err fill_plan(luna_plan *plan, const luna_plan_request *request)
{
    size_t last[LUNA_GRAPH_MAX], uses[LUNA_GRAPH_MAX];
    life l = {.plan = plan};
    luna_graph_uses(plan->graph, last, uses);
    measure_values(plan, request->shapes);
    choose_stored(plan, uses);
    LUNA_TRY(allocate(plan));
    LUNA_TRY(make_passes(plan, uses));
    follow(&l);
    return place_within(&l);
}

luna_err cpu_plan_build(const luna_plan_request *request, size_t threads, size_t room,
                        luna_plan **out)
{
    luna_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's plan");
    plan->graph = request->graph;
    plan->threads = threads;
    plan->room = room;
    const luna_err err = fill_plan(plan, request);
    if (err != LUNA_OK) cpu_plan_free(plan);
    if (err == LUNA_OK) *out = plan;
    return err;
}

void cpu_plan_free(luna_plan *plan)
{
    if (!plan) return;
    for (size_t i = 0; plan->graph && i < plan->graph->count; i++)
        free(plan->value[i].coefficients);
    free(plan->passes);
    free(plan->spans);
    free(plan->file_spans);
    free(plan);
}

static size_t pass_steps(const luna_plan *plan, const cpu_pass *pass)
{
    const size_t height = plan->value[pass->node].shape.height;
    size_t rows = height;
    if (pass->kind == CPU_BANDS) rows = pass->rows;
    if (pass->kind == CPU_ATTENTION) rows = cpu_attention_step(plan, pass);
    return (height + rows - 1) / rows;
}

size_t cpu_plan_steps(const luna_plan *plan)
{
    size_t steps = 0;
    for (size_t i = 0; i < plan->pass_count; i++)
        steps += pass_steps(plan, &plan->passes[i]);
    return steps;
}
