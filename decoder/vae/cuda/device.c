#include "decoder/vae/cuda/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST = 75 };  //  compute capability, times 10
enum { TRIES = 8 };

static double mib(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

//  With the numbers: others may be on the card.
static luna_err no_memory(const char *what)
{
    size_t left = 0, total = 0;
    if (cudaMemGetInfo(&left, &total) != cudaSuccess)
        return luna_error(LUNA_NO_MEMORY, "no memory on the GPU for %s", what);
    return luna_error(LUNA_NO_MEMORY,
                      "no memory on the GPU for %s: %.0f of its %.0f MiB are free", what,
                      mib(left), mib(total));
}

//  Of these the rest of the process goes on; after any other the context is lost.
static bool is_of_memory(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation;
}

//  Not the card's fault: its code is not in this build, or the driver is too old for it.
static bool is_unfit(cudaError_t error)
{
    return error == cudaErrorNoKernelImageForDevice ||
           error == cudaErrorInsufficientDriver ||
           error == cudaErrorUnsupportedPtxVersion ||
           error == cudaErrorInvalidKernelImage || error == cudaErrorSystemDriverMismatch;
}

luna_err gpu_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return LUNA_OK;
    if (is_of_memory(error)) {
        (void)cudaGetLastError();  //  it is over with that: the device goes on
        return no_memory(what);
    }
    if (is_unfit(error))
        return luna_error(LUNA_UNAVAILABLE,
                          "the GPU cannot run this build's code (%s: %s); install a "
                          "driver as new as CUDA %d.%d, or a Luna built for this card",
                          what, cudaGetErrorString(error), CUDART_VERSION / 1000,
                          CUDART_VERSION % 1000 / 10);
    return luna_error(LUNA_DEVICE, "the GPU failed at %s: %s; start the decoder again",
                      what, cudaGetErrorString(error));
}

static bool dnn_is_of_memory(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_ALLOC_FAILED ||
           status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
}

luna_err gpu_check_dnn(cudnnStatus_t status, const char *what)
{
    if (status == CUDNN_STATUS_SUCCESS) return LUNA_OK;
    if (dnn_is_of_memory(status)) return no_memory("cuDNN");
    return luna_error(LUNA_DEVICE, "cuDNN failed at %s: %s; start the decoder again",
                      what, cudnnGetErrorString(status));
}

luna_err gpu_check_blas(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS) return LUNA_OK;
    if (status == CUBLAS_STATUS_ALLOC_FAILED) return no_memory("cuBLASLt");
    return luna_error(LUNA_DEVICE, "cuBLASLt failed at %s: %s; start the decoder again",
                      what, cublasLtGetStatusString(status));
}

static luna_err no_driver(cudaError_t error)
{
    return luna_error(LUNA_UNAVAILABLE,
                      "no GPU can be used: %s; is NVIDIA's driver loaded, and as new as "
                      "CUDA %d.%d?",
                      cudaGetErrorString(error), CUDART_VERSION / 1000,
                      CUDART_VERSION % 1000 / 10);
}

static luna_err check_age(int index, int major, int minor)
{
    if (major * 10 + minor >= OLDEST) return LUNA_OK;
    return luna_error(LUNA_UNAVAILABLE,
                      "GPU %d is too old: compute capability %d.%d, %d.%d needed", index,
                      major, minor, OLDEST / 10, OLDEST % 10);
}

//  As nvidia-smi writes it.
static void write_uuid(const cudaUUID_t *uuid, char out[LUNA_CARD_UUID_BYTES])
{
    size_t used = (size_t)snprintf(out, LUNA_CARD_UUID_BYTES, "GPU");
    for (int i = 0; i < 16; i++) {
        const bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
        used += (size_t)snprintf(out + used, LUNA_CARD_UUID_BYTES - used, "%s%02x",
                                 dash ? "-" : "", (unsigned char)uuid->bytes[i]);
    }
}

luna_err gpu_cards(luna_card *out, size_t room, size_t *count)
{
    int there = 0;
    const cudaError_t error = cudaGetDeviceCount(&there);
    if (error != cudaSuccess) return no_driver(error);
    *count = (size_t)there < room ? (size_t)there : room;
    for (size_t i = 0; i < *count; i++) {
        struct cudaDeviceProp is;
        LUNA_TRY(gpu_check(cudaGetDeviceProperties(&is, (int)i), "a look"));
        write_uuid(&is.uuid, out[i].uuid);
        snprintf(out[i].name, sizeof out[i].name, "%.63s", is.name);
    }
    return LUNA_OK;
}

luna_err gpu_device_probe(int index)
{
    int count = 0, major = 0, minor = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) return no_driver(error);
    if (index >= count)
        return luna_error(LUNA_UNAVAILABLE, "this machine has %d GPU%s", count,
                          count == 1 ? "" : "s");
    LUNA_TRY(gpu_check(
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index),
        "a look"));
    LUNA_TRY(gpu_check(
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index),
        "a look"));
    return check_age(index, major, minor);
}

luna_err gpu_memory(int index, luna_backend_memory *out)
{
    LUNA_TRY(gpu_check(cudaSetDevice(index), "choosing it"));
    return gpu_check(cudaMemGetInfo(&out->free_bytes, &out->total_bytes),
                     "asking for its memory");
}

//  cuBLASLt's advice for Hopper.
enum { WORKSPACE_BYTES = 32 << 20 };

static luna_err start(gpu_device *device)
{
    LUNA_TRY(gpu_device_use(device));
    LUNA_TRY(gpu_check(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking),
                       "a stream"));
    LUNA_TRY(gpu_check(cudaStreamCreateWithFlags(&device->copies, cudaStreamNonBlocking),
                       "a stream"));
    LUNA_TRY(gpu_check_dnn(cudnnCreate(&device->dnn), "its start"));
    LUNA_TRY(gpu_check_dnn(cudnnSetStream(device->dnn, device->stream), "its start"));
    LUNA_TRY(gpu_check_blas(cublasLtCreate(&device->lt), "its start"));
    return gpu_workspace_grow(device, WORKSPACE_BYTES);
}

//  The fused kernels' instructions begin with 8.0.
static gpu_fusing fusing_of(const struct cudaDeviceProp *properties)
{
    const char *wish = getenv("LUNA_CUDA_FUSED");
    if (properties->major < 8) return GPU_FUSES_NOTHING;
    if (wish && strcmp(wish, "never") == 0) return GPU_FUSES_NOTHING;
    return wish && strcmp(wish, "always") == 0 ? GPU_FUSES_ALL : GPU_FUSES_LARGE;
}

//  LUNA_CUDA_TRIES, else as many as have found the best so far.
static size_t tries_of(void)
{
    const char *text = getenv("LUNA_CUDA_TRIES");
    const long wanted = text ? strtol(text, NULL, 10) : 0;
    return wanted > 0 ? (size_t)wanted : TRIES;
}

void gpu_device_set_trial(gpu_device *device)
{
    if (device->fusing != GPU_FUSES_NOTHING) device->fusing = GPU_FUSES_ALL;
    device->tries = 1;
}

luna_err gpu_device_open(int index, gpu_device *device)
{
    *device = (gpu_device){.index = index};
    LUNA_TRY(gpu_device_probe(index));
    LUNA_TRY(gpu_check(cudaGetDeviceProperties(&device->properties, index), "a look"));
    device->fusing = fusing_of(&device->properties);
    device->tries = tries_of();
    const luna_err err = start(device);
    if (err != LUNA_OK) gpu_device_close(device);
    return err;
}

//  Not the whole device: another thread may be recording a decode on it.
void gpu_device_finish(const gpu_device *device)
{
    if (device->stream) (void)cudaStreamSynchronize(device->stream);
    if (device->copies) (void)cudaStreamSynchronize(device->copies);
}

void gpu_device_close(gpu_device *device)
{
    (void)cudaSetDevice(device->index);
    gpu_convs_free(device);
    gpu_gemms_free(device);
    gpu_arena_free(device);
    if (device->workspace) (void)cudaFree(device->workspace);
    if (device->lt) (void)cublasLtDestroy(device->lt);
    if (device->dnn) (void)cudnnDestroy(device->dnn);
    if (device->copies) (void)cudaStreamDestroy(device->copies);
    if (device->stream) (void)cudaStreamDestroy(device->stream);
    memset(device, 0, sizeof *device);
}

luna_err gpu_device_use(const gpu_device *device)
{
    return gpu_check(cudaSetDevice(device->index), "choosing it");
}

void gpu_device_step(const gpu_device *device)
{
    if (device->step) device->step(device->step_context);
}

bool gpu_device_has_bf16(const gpu_device *device)
{
    return device->properties.major >= 8;
}

static luna_err grow(gpu_device *device, size_t bytes, void **memory, size_t *room,
                     const char *name)
{
    char what[80];
    if (*memory && bytes <= *room) return LUNA_OK;
    snprintf(what, sizeof what, "the %.0f MiB of %s", mib(bytes), name);
    LUNA_TRY(gpu_check(cudaStreamSynchronize(device->stream), "waiting"));
    if (*memory) LUNA_TRY(gpu_check(cudaFree(*memory), "freeing"));
    *memory = NULL;
    *room = 0;
    LUNA_TRY(gpu_check(cudaMalloc(memory, bytes ? bytes : 1), what));
    *room = bytes;
    return LUNA_OK;
}

luna_err gpu_arena_grow(gpu_device *device, size_t bytes)
{
    return grow(device, bytes, &device->arena, &device->arena_bytes, "a decode");
}

void gpu_arena_free(gpu_device *device)
{
    if (device->arena) (void)cudaFree(device->arena);
    device->arena = NULL;
    device->arena_bytes = 0;
}

luna_err gpu_workspace_grow(gpu_device *device, size_t bytes)
{
    return grow(device, bytes, &device->workspace, &device->workspace_bytes,
                "its libraries");
}
