//  Running a program: every step is started on the device's stream, in order; after the
//  first time all of them as one CUDA graph, which takes the time of the launches away.

#include "decoder/vae/cuda/gpu.h"

#include <math.h>

void *gpu_buffer(const gpu_program *program, int buffer)
{
    if (buffer == LUNA_NONE) return NULL;
    return (uint8_t *)program->lane->device->arena + program->spans[buffer].offset;
}

static const float *constant(const gpu_program *program, long at)
{
    return at == LUNA_NONE ? NULL : program->constants + at;
}

static const gpu_pair *pairs_of(const gpu_program *program, const gpu_step *step)
{
    if (step->pairs != LUNA_NONE) return gpu_buffer(program, step->pairs);
    return (const gpu_pair *)constant(program, step->offset);
}

static luna_err start_conv(const gpu_program *program, const gpu_step *step)
{
    gpu_device *device = program->lane->device;
    const gpu_conv_call call = {.x = gpu_buffer(program, step->x),
                                .weight = step->weight,
                                .bias = constant(program, step->bias),
                                .residual = gpu_buffer(program, step->z),
                                .y = gpu_buffer(program, step->y)};
    LUNA_TRY(gpu_conv_run(device, step->conv, &call));
    if (!step->bare) return LUNA_OK;
    return gpu_check(gpu_add(&step->to, call.y, call.residual, call.bias, step->act,
                             call.y, device->stream),
                     "a convolution's end");
}

//  One strip of rows, aside and then to the front of what has been read already.
static luna_err start_strip(const gpu_program *program, const gpu_step *step,
                            size_t first, size_t rows)
{
    gpu_device *device = program->lane->device;
    const size_t size = gpu_size(step->to.type) * (size_t)step->to.width;
    const size_t in = size * (size_t)step->from.channels;
    const size_t out = size * (size_t)step->to.channels;
    uint8_t *value = gpu_buffer(program, step->x),
            *aside = gpu_buffer(program, step->scratch);
    const gpu_conv_call call = {.x = value + first * in,
                                .weight = step->weight,
                                .bias = constant(program, step->bias),
                                .y = aside};
    LUNA_TRY(
        gpu_conv_run(device, rows == step->rows ? step->conv : step->last_conv, &call));
    return gpu_check(cudaMemcpyAsync(value + first * out, aside, rows * out,
                                     cudaMemcpyDeviceToDevice, device->stream),
                     "a strip");
}

static luna_err start_conv_over(const gpu_program *program, const gpu_step *step)
{
    const size_t height = (size_t)step->to.height;
    for (size_t first = 0; first < height; first += step->rows)
        LUNA_TRY(start_strip(program, step, first,
                             height - first < step->rows ? height - first : step->rows));
    return LUNA_OK;
}

static cudaError_t start_conv_plain(const gpu_program *program, const gpu_step *step,
                                    cudaStream_t stream)
{
    const gpu_conv_args args = {.from = step->from,
                                .channels = step->to.channels,
                                .kernel = step->kernel,
                                .weight = step->weight,
                                .bias = constant(program, step->bias),
                                .residual = gpu_buffer(program, step->z),
                                .act = step->act};
    return gpu_conv_plain(&args, gpu_buffer(program, step->x),
                          gpu_buffer(program, step->y), stream);
}

static cudaError_t start_conv_last(const gpu_program *program, const gpu_step *step,
                                   cudaStream_t stream)
{
    const gpu_last_args args = {.from = step->from,
                                .channels = step->to.channels,
                                .fragments = step->weight,
                                .bias = constant(program, step->bias),
                                .pairs = pairs_of(program, step),
                                .act = step->act};
    return gpu_conv_last(&args, gpu_buffer(program, step->x),
                         gpu_buffer(program, step->y),
                         program->lane->device->properties.multiProcessorCount, stream);
}

static cudaError_t start_conv_fused(const gpu_program *program, const gpu_step *step)
{
    const gpu_fused_args args = {.from = step->from,
                                 .channels = step->to.channels,
                                 .folded = step->parts_of.folded,
                                 .pairs = gpu_buffer(program, step->pairs),
                                 .weight = step->weight,
                                 .bias = constant(program, step->bias),
                                 .residual = gpu_buffer(program, step->z),
                                 .beside = gpu_buffer(program, step->v),
                                 .beside_channels = step->beside,
                                 .parts = gpu_buffer(program, step->parts)};
    return gpu_fused_start(program->fuser, program->lane->device, &args,
                           gpu_buffer(program, step->x), gpu_buffer(program, step->y));
}

static cudaError_t start_conv_narrow(const gpu_program *program, const gpu_step *step,
                                     cudaStream_t stream)
{
    const gpu_narrow_args args = {.from = step->from,
                                  .folded = step->kernel == 4,
                                  .weight = step->weight,
                                  .bias = constant(program, step->bias),
                                  .residual = gpu_buffer(program, step->z),
                                  .relu = step->act == GPU_RELU};
    return gpu_conv_narrow(&args, gpu_buffer(program, step->x),
                           gpu_buffer(program, step->y),
                           program->lane->device->properties.multiProcessorCount, stream);
}

static cudaError_t start_norm(const gpu_program *program, const gpu_step *step,
                              cudaStream_t stream)
{
    const gpu_norm norm = {.from = step->from,
                           .groups = step->groups,
                           .epsilon = step->epsilon,
                           .weight = constant(program, step->norm_weight),
                           .bias = constant(program, step->bias),
                           .pending = constant(program, step->offset)};
    if (step->parts != LUNA_NONE)
        return gpu_norm_pairs_of_parts(&norm, &step->parts_of,
                                       gpu_buffer(program, step->parts),
                                       gpu_buffer(program, step->pairs), stream);
    return gpu_norm_pairs(&norm, gpu_buffer(program, step->x),
                          gpu_buffer(program, step->scratch),
                          gpu_buffer(program, step->pairs), stream);
}

//  One chunk of rows: scores, weights, sums.
static luna_err start_rows(const gpu_program *program, const gpu_step *step, size_t first,
                           size_t rows)
{
    gpu_device *device = program->lane->device;
    const gpu_type type = step->to.type;
    const size_t tokens = gpu_pixels(&step->to), pitch = gpu_room(tokens);
    const size_t skip = first * gpu_room((size_t)step->to.channels) * gpu_size(type);
    const int which = rows == step->rows ? 0 : 1;
    uint8_t *scores = gpu_buffer(program, step->scratch);
    //  In fp16 the weights take the scores' place.
    const gpu_type score = type == GPU_FP16 ? GPU_FP16 : GPU_FP32;
    uint8_t *weights =
        score == type ? scores : scores + step->rows * pitch * sizeof(float);
    LUNA_TRY(gpu_gemm_run(device, step->scores[which],
                          1.0F / sqrtf((float)step->to.channels),
                          (uint8_t *)gpu_buffer(program, step->x) + skip,
                          gpu_buffer(program, step->z), scores));
    LUNA_TRY(
        gpu_check(gpu_softmax(score, scores, type, weights, rows, tokens, device->stream),
                  "a softmax"));
    return gpu_gemm_run(device, step->sums[which], 1.0F, weights,
                        gpu_buffer(program, step->v),
                        (uint8_t *)gpu_buffer(program, step->y) + skip);
}

static luna_err start_attention(const gpu_program *program, const gpu_step *step)
{
    const size_t tokens = gpu_pixels(&step->to);
    for (size_t first = 0; first < tokens; first += step->rows)
        LUNA_TRY(start_rows(program, step, first,
                            tokens - first < step->rows ? tokens - first : step->rows));
    return LUNA_OK;
}

static luna_err start_attention_fused(const gpu_program *program, const gpu_step *step)
{
    const gpu_device *device = program->lane->device;
    gpu_attention_args args = {.type = step->to.type,
                               .channels = step->to.channels,
                               .tokens = gpu_pixels(&step->to),
                               .scale = 1.0F / sqrtf((float)step->to.channels),
                               .q = gpu_buffer(program, step->x),
                               .k = gpu_buffer(program, step->z),
                               .v = gpu_buffer(program, step->v),
                               .y = gpu_buffer(program, step->y),
                               .scratch = gpu_buffer(program, step->scratch)};
    for (; args.first < args.tokens; args.first += step->rows) {
        const size_t left = args.tokens - args.first;
        args.rows = left < step->rows ? left : step->rows;
        LUNA_TRY(
            gpu_check(gpu_attention_wgmma(&args, device->properties.multiProcessorCount,
                                          device->stream),
                      "starting attention"));
    }
    return LUNA_OK;
}

static cudaError_t start_own(const gpu_program *program, const gpu_step *step,
                             cudaStream_t stream)
{
    const void *x = gpu_buffer(program, step->x);
    void *y = gpu_buffer(program, step->y);
    switch (step->kind) {
        case GPU_STEP_FROM_PLANES:
            return gpu_from_planes(&step->to, x, y, stream);
        case GPU_STEP_TO_PLANES:
            return gpu_to_planes(&step->to, x, y, stream);
        case GPU_STEP_CONV_PLAIN:
            return start_conv_plain(program, step, stream);
        case GPU_STEP_CONV_LAST:
            return start_conv_last(program, step, stream);
        case GPU_STEP_CONV_FUSED:
            return start_conv_fused(program, step);
        case GPU_STEP_CONV_NARROW:
            return start_conv_narrow(program, step, stream);
        case GPU_STEP_NORM:
            return start_norm(program, step, stream);
        case GPU_STEP_APPLY:
            return gpu_apply(&step->to, pairs_of(program, step), step->act, x, y, stream);
        case GPU_STEP_RMS_NORM:
            return gpu_rms_norm(&step->to, step->epsilon,
                                constant(program, step->norm_weight), step->act, x, y,
                                stream);
        case GPU_STEP_ADD:
            return gpu_add(&step->to, x, gpu_buffer(program, step->z),
                           constant(program, step->bias), step->act, y, stream);
        case GPU_STEP_UPSAMPLE:
            return gpu_upsample(&step->to, x, y, stream);
        default:
            return gpu_unpack(&step->to, x, y, stream);
    }
}

luna_err gpu_step_start(const gpu_program *program, const gpu_step *step)
{
    if (step->kind == GPU_STEP_CONV) return start_conv(program, step);
    if (step->kind == GPU_STEP_CONV_OVER) return start_conv_over(program, step);
    if (step->kind == GPU_STEP_ATTENTION) return start_attention(program, step);
    if (step->kind == GPU_STEP_ATTENTION_FUSED)
        return start_attention_fused(program, step);
    return gpu_check(start_own(program, step, program->lane->device->stream),
                     "starting a kernel");
}

static luna_err start_steps(const gpu_program *program)
{
    for (size_t i = 0; i < program->step_count; i++)
        LUNA_TRY(gpu_step_start(program, &program->steps[i]));
    return LUNA_OK;
}

static luna_err capture(gpu_program *program)
{
    gpu_device *device = program->lane->device;
    cudaGraph_t graph = NULL;
    LUNA_TRY(gpu_check(
        cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal),
        "a graph"));
    const luna_err err = start_steps(program);
    const cudaError_t ended = cudaStreamEndCapture(device->stream, &graph);
    LUNA_TRY(err);
    LUNA_TRY(gpu_check(ended, "a graph"));
    const cudaError_t made = cudaGraphInstantiate(&program->graph, graph, 0);
    (void)cudaGraphDestroy(graph);
    program->graph_arena = device->arena;
    program->graph_workspace = device->workspace;
    return gpu_check(made, "a graph");
}

//  A graph holds addresses: it is good while memory stays where it was.
static void drop_stale(gpu_program *program)
{
    const gpu_device *device = program->lane->device;
    if (!program->graph || (program->graph_arena == device->arena &&
                            program->graph_workspace == device->workspace))
        return;
    (void)cudaGraphExecDestroy(program->graph);
    program->graph = NULL;
}

luna_err gpu_program_start(gpu_program *program)
{
    drop_stale(program);
    if (!program->started) {
        LUNA_TRY(start_steps(program));
        program->started = true;
        return LUNA_OK;
    }
    if (!program->graph) LUNA_TRY(capture(program));
    return gpu_check(cudaGraphLaunch(program->graph, program->lane->device->stream),
                     "starting a decode");
}
