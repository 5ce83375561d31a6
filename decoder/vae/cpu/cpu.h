//  cpu.h - inside the CPU backend: how a decode is cut up, and where its values are
//
//  A value's row is its pixels from left to right, channels side by side (kernels.h). Any
//  row of most values can be worked out from rows of the values they are made of, so only
//  those are stored that must be: what a 3x3 convolution, an addition or an attention
//  makes, what has its statistics taken, what is dear and read more than once. One pass
//  makes one stored value, row by row or in bands of rows; what lies between stored
//  values is worked out row by row inside a pass, by the thread that needs it. Group
//  norms need the whole picture: their statistics are taken, row by row and in a fixed
//  order, in the pass that makes their input. So nothing depends on where a band begins,
//  and the memory of a decode is that of the stored values. Those that are over the
//  budget live in a temporary file instead, of which a pass reads and writes a few rows
//  at a time.
//
//  cpu.c is the backend, plan.c decides on passes and places, weights.c packs weights,
//  rows.c works out rows, bands.c and attention.c make values, run.c runs the passes,
//  moments.c takes statistics, spill.c is the file.

#ifndef LUNA_DECODER_VAE_CPU_CPU_H
#define LUNA_DECODER_VAE_CPU_CPU_H

#include "decoder/vae/backend.h"
#include "decoder/vae/cpu/kernels.h"
#include "decoder/vae/cpu/team.h"
#include "decoder/vae/memory_plan.h"

#include <stdatomic.h>

//  What a decode takes without a limit, weights included: larger pictures use a file.
#define CPU_DEFAULT_BYTES ((size_t)3 << 29)

//  ---- weights.c -------------------------------------------------------------------

//  Weights in the kernels' form: vectors filled up with zeros, convolutions packed in
//  panels (3x3: CPU_POINTS of them). Vectors are kept; packed ones as far as memory is
//  left for them, the others are packed anew for each pass.
typedef struct cpu_weights {
    const luna_weights *file;
    const cpu_kernels *kernels;
    cpu_team *team;
    float *vector[LUNA_GRAPH_MAX];
    float *packed[LUNA_GRAPH_MAX];
    size_t packed_bytes[LUNA_GRAPH_MAX];
    bool kept[LUNA_GRAPH_MAX];  //  of the packed ones
    float *zeros;
    size_t zeros_count;
    size_t bytes;  //  of vectors and kept ones
} cpu_weights;

//  Bytes of the packed weights of a convolution.
size_t cpu_weights_size(const luna_graph *graph, size_t node);

//  Makes every vector of the graph, then packs and keeps convolutions while all that is
//  kept stays below `room`; drops what was kept if it does not. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err cpu_weights_prepare(cpu_weights *w, const luna_graph *graph,
                                           size_t room);

//  Packs the weights of a convolution unless they are. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err cpu_weights_load(cpu_weights *w, const luna_graph *graph,
                                        size_t node);
//  Lets go of those that are not kept.
void cpu_weights_unload(cpu_weights *w);

//  A weight or bias as a vector; zeros for LUNA_NONE.
const float *cpu_weights_vector(const cpu_weights *w, int number);

void cpu_weights_free(cpu_weights *w);

//  ---- plan.c ----------------------------------------------------------------------

typedef enum cpu_pass_kind { CPU_ROWS, CPU_BANDS, CPU_ATTENTION } cpu_pass_kind;

//  Working memory of a pass, in spans of the plan: they exist while the pass runs.
enum {
    CPU_WORK,     //  a part for each thread
    CPU_SOURCE,   //  BANDS: rows of the convolution's input with a border of zeros
    CPU_TARGET,   //  BANDS: rows of the result when it is not stored in memory
    CPU_MOMENTS,  //  statistics by row
    CPU_KEYS,     //  ATTENTION: packed
    CPU_VALUES,
    CPU_AREAS
};

typedef struct cpu_pass {
    cpu_pass_kind kind;
    size_t node;          //  whose value is made
    size_t conv;          //  BANDS: the 3x3 convolution; `node` or what it adds up
    int other;            //  BANDS: what is added to it; LUNA_NONE: nothing
    size_t rows;          //  BANDS: of a band; ATTENTION: query rows at a time
    size_t tiles;         //  BANDS: at a time
    size_t row_work;      //  floats for a thread's rows
    size_t work;          //  floats for a thread in all
    int area[CPU_AREAS];  //  spans, LUNA_NONE: not needed
} cpu_pass;

typedef struct cpu_value {
    luna_shape shape;
    size_t channels;    //  filled up
    size_t row_floats;  //  width * channels
    bool stored;
    bool spilled;
    int span;             //  in memory, or in the file when spilled; LUNA_NONE: neither
    float *coefficients;  //  of a group norm: for `scale`, made when its input is
} cpu_value;

struct luna_plan {
    const luna_graph *graph;
    size_t threads;
    size_t room;  //  bytes that values and working memory may take
    cpu_value value[LUNA_GRAPH_MAX];
    cpu_pass *passes;
    size_t pass_count;
    luna_span *spans;  //  in memory; times are passes
    size_t span_count;
    luna_span *file_spans;
    size_t file_span_count;
    size_t arena_bytes;
    size_t file_bytes;
};

//  Puts values into the file until the rest is below `room` bytes, as far as that goes.
LUNA_MUST_USE luna_err cpu_plan_build(const luna_plan_request *request, size_t threads,
                                      size_t room, luna_plan **out);
void cpu_plan_free(luna_plan *plan);

//  Calls of cpu_step in a decode.
size_t cpu_plan_steps(const luna_plan *plan);

//  Calls visit(context, node) for what a pass works out: its own node and all that are
//  not stored down to stored ones, and those as well.
void cpu_plan_visit(const luna_plan *plan, const cpu_pass *pass,
                    void (*visit)(void *context, size_t node), void *context);

//  ---- run.c -----------------------------------------------------------------------

typedef struct cpu_state {
    const cpu_kernels *kernels;
    cpu_team *team;
    cpu_weights weights;
    void *arena;  //  working memory of all plans, one at a time
    size_t arena_bytes;
    void (*step)(void *context);  //  as in luna_vae_options
    void *step_context;
} cpu_state;

//  One decode.
typedef struct cpu_run {
    cpu_state *state;
    const cpu_kernels *kernels;
    luna_plan *plan;
    const float *input;
    float *output;
    int file;               //  -1: none
    atomic_int file_error;  //  errno of the first failure
} cpu_run;

LUNA_MUST_USE luna_err cpu_plan_run(cpu_state *s, luna_plan *plan, const float *input,
                                    float *output);

//  Tells the caller that a decode goes on.
void cpu_step(cpu_run *r);

//  An area of a pass; NULL when it has none.
float *cpu_area(const cpu_run *r, const cpu_pass *pass, int area);

//  The part of the work area that is thread `thread`'s.
float *cpu_work_of(const cpu_run *r, const cpu_pass *pass, size_t thread);

//  ---- rows.c ----------------------------------------------------------------------

//  Floats of working memory that a row of node needs, stored values at no cost.
size_t cpu_row_work(const luna_plan *plan, size_t node);

//  Row y of a value into `out`: fetched if it is stored, else worked out.
void cpu_row(cpu_run *r, size_t node, size_t y, float *work, float *out);

//  Row y as its definition has it, stored or not; not for 3x3 convolutions and attention.
void cpu_row_define(cpu_run *r, size_t node, size_t y, float *work, float *out);

//  Row y of a stored value in memory; NULL when it is not there.
float *cpu_row_stored(const cpu_run *r, size_t node, size_t y);

//  A finished row: its statistics are taken, and it goes into the file or the picture
//  when that is where its value lives.
void cpu_row_finish(cpu_run *r, const cpu_pass *pass, size_t y, const float *row);

//  ---- bands.c, attention.c --------------------------------------------------------

//  Floats that a thread needs besides those of rows.
size_t cpu_bands_work(const luna_plan *plan, const cpu_pass *pass);
size_t cpu_bands_source(const luna_plan *plan, const cpu_pass *pass);
void cpu_bands_run(cpu_run *r, const cpu_pass *pass);

//  Rows of queries from one cpu_step to the next.
size_t cpu_attention_step(const luna_plan *plan, const cpu_pass *pass);
size_t cpu_attention_work(const luna_plan *plan, const cpu_pass *pass);
size_t cpu_attention_keys(const luna_plan *plan, const cpu_pass *pass);
size_t cpu_attention_values(const luna_plan *plan, const cpu_pass *pass);
void cpu_attention_run(cpu_run *r, const cpu_pass *pass);

//  ---- moments.c -------------------------------------------------------------------

//  Doubles that taking the statistics of a row needs in the pass that makes `node`.
size_t cpu_moments_row(const luna_plan *plan, size_t node);

//  Takes the statistics of a row for every group norm that reads the pass's value.
void cpu_moments_take(const cpu_run *r, const cpu_pass *pass, size_t y, const float *row);

//  With all rows taken: the coefficients of those group norms.
void cpu_moments_finish(const cpu_run *r, const cpu_pass *pass);

//  ---- spill.c ---------------------------------------------------------------------

//  A file of `bytes` without a name, in TMPDIR or /var/tmp; it is gone when it is closed,
//  however the process ends. LUNA_NO_MEMORY when there is no room for it.
LUNA_MUST_USE luna_err cpu_spill_open(size_t bytes, int *file);

//  All of `bytes` at `offset`; 0 or an errno.
int cpu_spill_read(int file, void *data, size_t bytes, size_t offset);
int cpu_spill_write(int file, const void *data, size_t bytes, size_t offset);

#endif
