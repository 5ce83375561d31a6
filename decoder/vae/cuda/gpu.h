//  gpu.h - inside the CUDA backend: the device, and how a graph becomes steps
//
//  backend.c is the engine's interface; device.c holds the card; conv.c wraps cuDNN's
//  graphs, tune.c chooses among its plans and keeps the choice on disk; fuser.c chooses
//  between them and convolutions of our own (timing.h is what both time with); gemm.c
//  wraps cuBLASLt; weights.c brings parameters to the device; scale.c chooses exponents
//  for fp16; plan.c turns a graph into steps, run.c runs them.

#ifndef LUNA_DECODER_VAE_CUDA_GPU_H
#define LUNA_DECODER_VAE_CUDA_GPU_H

#include "decoder/vae/backend.h"
#include "decoder/vae/cuda/kernels.h"
#include "decoder/vae/memory_plan.h"

#include <cublasLt.h>
#include <cudnn.h>

//  ---- device.c --------------------------------------------------------------------

//  Which convolutions and attentions the fused kernels do: none where the card cannot;
//  those large enough for the card; or every one they can, on trial and for tests:
//  LUNA_CUDA_FUSED=never or always.
typedef enum gpu_fusing { GPU_FUSES_NOTHING, GPU_FUSES_LARGE, GPU_FUSES_ALL } gpu_fusing;

//  The kernel that does them (fuser.c): none, the library is faster; that of sm_90; the
//  portable one; the same with short sums in 16 bits.
typedef enum gpu_fuser {
    GPU_FUSER_UNKNOWN,
    GPU_FUSER_NONE,
    GPU_FUSER_WGMMA,
    GPU_FUSER_MMA,
    GPU_FUSER_MMA_HALF
} gpu_fuser;

//  One card as one engine uses it.
typedef struct gpu_device {
    int index;
    struct cudaDeviceProp properties;
    gpu_fusing fusing;
    gpu_fuser fuser;
    size_t tries;         //  plans of cuDNN's that are timed for a convolution
    cudaStream_t stream;  //  of the kernels
    cudaStream_t copies;  //  of what goes back to the host
    cudnnHandle_t dnn;
    cublasLtHandle_t lt;
    void *workspace;  //  of library calls
    size_t workspace_bytes;
    void *arena;  //  working memory of all plans, one at a time
    size_t arena_bytes;
    struct gpu_conv *convs;  //  made so far
    struct gpu_gemm *gemms;
    void (*step)(void *context);  //  as in luna_vae_options; may be NULL
    void *step_context;
} gpu_device;

//  As in luna_backend.
LUNA_MUST_USE luna_err gpu_cards(luna_card *out, size_t room, size_t *count);
//  LUNA_UNAVAILABLE: no such card, or one that is too old.
LUNA_MUST_USE luna_err gpu_device_probe(int index);
LUNA_MUST_USE luna_err gpu_memory(int index, luna_backend_memory *out);
LUNA_MUST_USE luna_err gpu_device_open(int index, gpu_device *device);
void gpu_device_close(gpu_device *device);
//  As in luna_backend_options: the fused kernels where they can be, one plan of cuDNN's.
void gpu_device_set_trial(gpu_device *device);
//  Waits for the work of this engine.
void gpu_device_finish(const gpu_device *device);

//  Makes the calling thread use the card.
luna_err gpu_device_use(const gpu_device *device);

//  Tells a watchdog that it goes on.
void gpu_device_step(const gpu_device *device);

//  Whether the card computes in bf16.
bool gpu_device_has_bf16(const gpu_device *device);

//  Grows the arena to `bytes`; its content is lost, its address may change.
LUNA_MUST_USE luna_err gpu_arena_grow(gpu_device *device, size_t bytes);
void gpu_arena_free(gpu_device *device);

//  The same for the libraries' workspace.
LUNA_MUST_USE luna_err gpu_workspace_grow(gpu_device *device, size_t bytes);

//  LUNA_OK, LUNA_NO_MEMORY, LUNA_UNAVAILABLE (this build has no code for the card, or the
//  driver is too old for it) or LUNA_DEVICE; `what` stands in the sentence.
luna_err gpu_check(cudaError_t error, const char *what);
luna_err gpu_check_dnn(cudnnStatus_t status, const char *what);
luna_err gpu_check_blas(cublasStatus_t status, const char *what);

//  ---- conv.c, tune.c --------------------------------------------------------------

//  What cuDNN is asked for: y = act(conv(x) + bias + residual).
typedef struct gpu_conv_problem {
    gpu_extent from;  //  channels filled up to their room
    int channels;     //  of the result, filled up
    int kernel;       //  1 or 3; a folded upsample: 4
    bool folded;      //  transposed, stride 2: the picture grows twofold; no epilogue
    bool bias;
    bool residual;
    bool relu;
} gpu_conv_problem;

typedef struct gpu_conv gpu_conv;

typedef struct gpu_conv_call {
    const void *x;
    const void *weight;
    const float *bias;
    const void *residual;
    void *y;
} gpu_conv_call;

//  The plan for a problem: one made before, one kept on disk, or the fastest of those
//  that the library offers, timed in the arena (whose content is lost). *out lives as
//  long as the device. LUNA_UNSUPPORTED when the library has none.
LUNA_MUST_USE luna_err gpu_conv_find(gpu_device *device, const gpu_conv_problem *problem,
                                     gpu_conv **out);
LUNA_MUST_USE luna_err gpu_conv_run(gpu_device *device, const gpu_conv *conv,
                                    const gpu_conv_call *call);
void gpu_convs_free(gpu_device *device);

//  ---- fuser.c ---------------------------------------------------------------------

//  Chooses device->fuser, unless it is chosen or nothing is to be fused: by
//  LUNA_CUDA_FUSER (library, wgmma, mma, mma-half), what the card is, what was kept of an
//  earlier trial, a trial in the arena.
LUNA_MUST_USE luna_err gpu_fuser_choose(gpu_device *device);
//  What a program of this type is to use. lean: in less memory.
gpu_fuser gpu_fuser_for(const gpu_device *device, gpu_type type, bool lean);
cudaError_t gpu_fused_start(gpu_fuser fuser, const gpu_device *device,
                            const gpu_fused_args *args, const void *x, void *y);

//  ---- gemm.c ----------------------------------------------------------------------

//  Row-major c [m, n] = scale * a [m, k] * b, with b [k, n], or [n, k] when turned.
//  Rows start every `_pitch` values.
typedef struct gpu_gemm_problem {
    gpu_type type;    //  of a and b
    gpu_type result;  //  of c
    size_t m, n, k;
    size_t a_pitch, b_pitch, c_pitch;
    bool turned;
} gpu_gemm_problem;

typedef struct gpu_gemm gpu_gemm;

LUNA_MUST_USE luna_err gpu_gemm_find(gpu_device *device, const gpu_gemm_problem *problem,
                                     gpu_gemm **out);
LUNA_MUST_USE luna_err gpu_gemm_run(gpu_device *device, const gpu_gemm *gemm, float scale,
                                    const void *a, const void *b, void *c);
void gpu_gemms_free(gpu_device *device);

//  ---- weights.c -------------------------------------------------------------------

//  A model's parameters on the device, in one precision.
typedef struct gpu_lane {
    gpu_device *device;
    gpu_type type;
    const luna_weights *weights;
    struct gpu_weight *kept;
    size_t kept_count;
    size_t weight_bytes;
} gpu_lane;

typedef enum gpu_form {
    GPU_FORM_CONV,    //  [out][kernel][kernel][in]
    GPU_FORM_FOLDED,  //  [in][4][4][out]: with the nearest 2 x 2 before it
    GPU_FORM_LAST,    //  gpu_conv_last_pack
    GPU_FORM_FUSED,   //  gpu_fused_pack
    GPU_FORM_FUSED_FOLDED,
    GPU_FORM_NARROW,  //  gpu_narrow_pack
    GPU_FORM_NARROW_FOLDED
} gpu_form;

//  A fused convolution's weights.
typedef struct gpu_fused_request {
    const luna_node *node;
    size_t from_channels;
    int exponent;
    bool folded;
    const luna_node *beside;  //  NULL: nothing beside it
    size_t beside_channels;
    int beside_exponent;
} gpu_fused_request;

//  The weight of a convolution times 2^exponent; kept.
LUNA_MUST_USE luna_err gpu_lane_weight(gpu_lane *lane, const luna_node *node,
                                       size_t from_channels, gpu_form form, int exponent,
                                       const void **out);
LUNA_MUST_USE luna_err gpu_lane_fused(gpu_lane *lane, const gpu_fused_request *request,
                                      const void **out);
void gpu_lane_free(gpu_lane *lane);

//  ---- plan.c ----------------------------------------------------------------------

typedef enum gpu_kind {
    GPU_STEP_FROM_PLANES,
    GPU_STEP_TO_PLANES,
    GPU_STEP_CONV,         //  by cuDNN
    GPU_STEP_CONV_PLAIN,   //  ours
    GPU_STEP_CONV_LAST,    //  ours, to planes
    GPU_STEP_CONV_FUSED,   //  ours, with norms
    GPU_STEP_CONV_NARROW,  //  ours, from 64 channels to 64
    GPU_STEP_CONV_OVER,    //  a 1 x 1 over its input, by strips of rows
    GPU_STEP_NORM,         //  makes pairs
    GPU_STEP_APPLY,
    GPU_STEP_RMS_NORM,
    GPU_STEP_ADD,
    GPU_STEP_UPSAMPLE,
    GPU_STEP_UNPACK,
    GPU_STEP_ATTENTION,       //  the library's products and a softmax
    GPU_STEP_ATTENTION_FUSED  //  ours
} gpu_kind;

typedef struct gpu_step {
    gpu_kind kind;
    size_t node;  //  whose value it makes
    gpu_extent from;
    gpu_extent to;
    int x, y;     //  buffers, LUNA_NONE: absent
    int z;        //  residual; k of an attention
    int v;        //  of an attention; what a fused convolution has beside it
    int scratch;  //  partial sums, scores
    int pairs;    //  made by a norm
    int parts;    //  statistics, made by a fused convolution
    gpu_parts parts_of;
    int beside;   //  channels of v
    long bias;    //  floats in the constants, LUNA_NONE: absent
    long offset;  //  pairs among the constants
    long norm_weight;
    gpu_act act;
    const void *weight;
    gpu_conv *conv;
    gpu_conv *last_conv;  //  of the last strip, when it has fewer rows
    bool bare;            //  the convolution has no epilogue: a step of ours adds it
    int kernel;
    int groups;
    float epsilon;
    gpu_gemm *scores[2];  //  of a whole chunk of rows, and of the last
    gpu_gemm *sums[2];
    size_t rows;  //  of a chunk, of a strip
} gpu_step;

typedef struct gpu_program {
    gpu_lane *lane;
    gpu_fuser fuser;
    gpu_step *steps;
    size_t step_count;
    size_t step_room;
    luna_span *spans;  //  one a buffer; times are step numbers
    size_t buffer_count;
    size_t buffer_room;
    size_t arena_bytes;
    float *constants;  //  on the device
    size_t constant_bytes;
    bool started;           //  once at least, so that the libraries are loaded
    cudaGraphExec_t graph;  //  of all steps; NULL: not yet
    void *graph_arena;      //  what it was made for
    void *graph_workspace;
} gpu_program;

//  The two buffers that hold planar float: what goes in and what comes out.
enum { GPU_INPUT = 0, GPU_OUTPUT = 1 };

//  exponents: of every node, NULL for all 0. lean: in less memory, a little slower: what
//  goes round a block by a 1 x 1 convolution is put over the block's input.
LUNA_MUST_USE luna_err gpu_program_build(gpu_lane *lane, const luna_graph *graph,
                                         const luna_shape *shapes,
                                         const int8_t *exponents, bool lean,
                                         gpu_program **out);
void gpu_program_free(gpu_program *program);

//  What the largest operation takes by itself, its value and the one it reads.
size_t gpu_least_bytes(const luna_graph *graph, const luna_shape *shapes, gpu_type type);

//  ---- run.c -----------------------------------------------------------------------

//  Starts all steps on the device's stream, as one graph when they were run before.
LUNA_MUST_USE luna_err gpu_program_start(gpu_program *program);

//  Starts one step.
LUNA_MUST_USE luna_err gpu_step_start(const gpu_program *program, const gpu_step *step);

void *gpu_buffer(const gpu_program *program, int buffer);

//  ---- scale.c ---------------------------------------------------------------------

//  Chooses exponents by which the values of a graph are kept smaller in fp16: powers of
//  two, so nothing is rounded by them. From a decode of random latents in fp32.
LUNA_MUST_USE luna_err gpu_scale_choose(gpu_device *device, const luna_weights *weights,
                                        const luna_graph *graph, int8_t *exponents);

#endif
