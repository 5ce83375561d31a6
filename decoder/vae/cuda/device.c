#include "decoder/vae/cuda/gpu.h"

#include <stdlib.h>
#include <string.h>

enum { OLDEST = 75 };  //  compute capability, times 10

luna_err gpu_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return LUNA_OK;
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();  //  it is over with that: the device goes on
        return luna_error(LUNA_NO_MEMORY, "no memory on the GPU for %s", what);
    }
    return luna_error(LUNA_DEVICE, "the GPU failed at %s: %s; start the decoder again",
                      what, cudaGetErrorString(error));
}

luna_err gpu_check_dnn(cudnnStatus_t status, const char *what)
{
    if (status == CUDNN_STATUS_SUCCESS) return LUNA_OK;
    return luna_error(status == CUDNN_STATUS_ALLOC_FAILED ? LUNA_NO_MEMORY : LUNA_DEVICE,
                      "cuDNN failed at %s: %s", what, cudnnGetErrorString(status));
}

luna_err gpu_check_blas(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS) return LUNA_OK;
    return luna_error(status == CUBLAS_STATUS_ALLOC_FAILED ? LUNA_NO_MEMORY : LUNA_DEVICE,
                      "cuBLASLt failed at %s: %s", what, cublasLtGetStatusString(status));
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

//  The fused kernel's instructions are those of 9.0, and of no card before or after.
static gpu_fusing fusing_of(const struct cudaDeviceProp *properties)
{
    const char *wish = getenv("LUNA_CUDA_FUSED");
    if (properties->major != 9 || properties->minor != 0) return GPU_FUSES_NOTHING;
    if (wish && strcmp(wish, "never") == 0) return GPU_FUSES_NOTHING;
    return wish && strcmp(wish, "always") == 0 ? GPU_FUSES_ALL : GPU_FUSES_LARGE;
}

luna_err gpu_device_open(int index, gpu_device *device)
{
    *device = (gpu_device){.index = index};
    LUNA_TRY(gpu_device_probe(index));
    LUNA_TRY(gpu_check(cudaGetDeviceProperties(&device->properties, index), "a look"));
    device->fusing = fusing_of(&device->properties);
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
                     const char *what)
{
    if (*memory && bytes <= *room) return LUNA_OK;
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
