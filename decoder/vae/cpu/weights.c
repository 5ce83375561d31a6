#include "decoder/vae/cpu/cpu.h"

#include <stdlib.h>

static luna_err no_memory(void)
{
    return luna_error(LUNA_NO_MEMORY, "no memory for the decoder's weights");
}

//  Zeroed, a multiple of the alignment as aligned_alloc asks.
static float *allocate(size_t bytes)
{
    const size_t room = (bytes / LUNA_MEMORY_ALIGN + 1) * LUNA_MEMORY_ALIGN;
    float *data = aligned_alloc(LUNA_MEMORY_ALIGN, room);
    for (size_t i = 0; data && i < room / sizeof *data; i++) data[i] = 0.0F;
    return data;
}

//  What one packed point of a convolution is: a matrix of input by output channels.
typedef struct matrix {
    size_t depth;
    size_t columns;
    size_t floats;
    size_t points;
} matrix;

static matrix matrix_of(const luna_graph *graph, size_t node)
{
    const luna_node *n = &graph->node[node];
    matrix m = {.depth = cpu_padded(graph->node[n->input[0]].channels),
                .columns = n->channels,
                .points = n->kernel == 1 ? 1 : CPU_POINTS};
    m.floats = cpu_panels(m.columns) * m.depth * CPU_PANEL;
    return m;
}

size_t cpu_weights_size(const luna_graph *graph, size_t node)
{
    const matrix m = matrix_of(graph, node);
    return m.points * m.floats * sizeof(float);
}

typedef struct packing {
    const cpu_kernels *kernels;
    matrix matrix;
    const float *from;  //  [columns, from_channels, taps], as the file has it
    size_t from_channels;
    size_t taps;
    float *to;
} packing;

//  CPU_LANES filters, for each of their input channels.
static void pack_lanes(void *context, size_t item, size_t thread)
{
    (void)thread;
    const packing *p = context;
    const size_t first = item * CPU_LANES, stride = p->from_channels * p->taps;
    const size_t left = p->matrix.columns - first;
    const size_t count = left < CPU_LANES ? left : CPU_LANES;
    const float *from = p->from + first * stride;
    float *to =
        p->to + first / CPU_PANEL * p->matrix.depth * CPU_PANEL + first % CPU_PANEL;
    for (size_t c = 0; c < p->from_channels; c++, from += p->taps, to += CPU_PANEL) {
        if (p->taps > 1)
            p->kernels->filter(from, stride, count, to, p->matrix.floats);
        else
            for (size_t i = 0; i < count; i++) to[i] = from[i * stride];
    }
}

static luna_err pack(cpu_weights *w, const luna_graph *graph, size_t node)
{
    const luna_node *n = &graph->node[node];
    float *values = NULL;
    packing p = {.kernels = w->kernels,
                 .matrix = matrix_of(graph, node),
                 .from_channels = graph->node[n->input[0]].channels,
                 .taps = n->kernel * n->kernel};
    LUNA_TRY(luna_backend_floats(&w->file->item[n->weight], &values));
    p.from = values;
    p.to = allocate(cpu_weights_size(graph, node));
    if (p.to) cpu_team_run(w->team, cpu_padded(n->channels) / CPU_LANES, pack_lanes, &p);
    free(values);
    if (!p.to) return no_memory();
    w->packed[n->weight] = p.to;
    w->packed_bytes[n->weight] = cpu_weights_size(graph, node);
    return LUNA_OK;
}

luna_err cpu_weights_load(cpu_weights *w, const luna_graph *graph, size_t node)
{
    return w->packed[graph->node[node].weight] ? LUNA_OK : pack(w, graph, node);
}

static void drop(cpu_weights *w, bool kept)
{
    for (size_t i = 0; i < LUNA_GRAPH_MAX; i++) {
        if (!w->packed[i] || w->kept[i] != kept) continue;
        free(w->packed[i]);
        w->packed[i] = NULL;
        w->kept[i] = false;
        if (kept) w->bytes -= w->packed_bytes[i];
    }
}

void cpu_weights_unload(cpu_weights *w)
{
    drop(w, false);
}

static luna_err make_vector(cpu_weights *w, int number)
{
    if (number == LUNA_NONE || w->vector[number]) return LUNA_OK;
    float *values = NULL;
    const luna_weight *weight = &w->file->item[number];
    const size_t bytes = cpu_padded(weight->count) * sizeof *values;
    LUNA_TRY(luna_backend_floats(weight, &values));
    float *vector = allocate(bytes);
    for (size_t i = 0; vector && i < weight->count; i++) vector[i] = values[i];
    free(values);
    if (!vector) return no_memory();
    w->vector[number] = vector;
    w->bytes += bytes;
    return LUNA_OK;
}

static luna_err make_zeros(cpu_weights *w, size_t count)
{
    if (count <= w->zeros_count) return LUNA_OK;
    free(w->zeros);
    w->zeros = allocate(count * sizeof *w->zeros);
    w->zeros_count = w->zeros ? count : 0;
    return w->zeros ? LUNA_OK : no_memory();
}

static luna_err make_vectors(cpu_weights *w, const luna_graph *graph)
{
    for (size_t i = 0; i < graph->count; i++) {
        const luna_node *n = &graph->node[i];
        LUNA_TRY(make_zeros(w, cpu_padded(n->channels)));
        if (n->op != LUNA_OP_CONV2D) LUNA_TRY(make_vector(w, n->weight));
        LUNA_TRY(make_vector(w, n->bias));
    }
    return LUNA_OK;
}

luna_err cpu_weights_prepare(cpu_weights *w, const luna_graph *graph, size_t room)
{
    LUNA_TRY(make_vectors(w, graph));
    if (w->bytes > room) drop(w, true);
    for (size_t i = 0; i < graph->count; i++) {
        const luna_node *n = &graph->node[i];
        if (n->op != LUNA_OP_CONV2D || w->packed[n->weight]) continue;
        const size_t bytes = cpu_weights_size(graph, i);
        if (w->bytes > room || bytes > room - w->bytes) continue;
        LUNA_TRY(pack(w, graph, i));
        w->kept[n->weight] = true;
        w->bytes += bytes;
    }
    return LUNA_OK;
}

const float *cpu_weights_vector(const cpu_weights *w, int number)
{
    return number == LUNA_NONE ? w->zeros : w->vector[number];
}

void cpu_weights_free(cpu_weights *w)
{
    drop(w, false);
    drop(w, true);
    for (size_t i = 0; i < LUNA_GRAPH_MAX; i++) {
        free(w->vector[i]);
        w->vector[i] = NULL;
    }
    free(w->zeros);
    w->zeros = NULL;
    w->zeros_count = w->bytes = 0;
}
