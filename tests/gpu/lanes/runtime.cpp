//  The CUDA runtime's functions that the kernels' tests call, on the processor's memory.
//  Each piece of memory ends at a page that must not be touched.

#include <cuda_runtime.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "decoder/vae/cuda/kernels.h"

namespace {

struct piece {
    void *pages;
    size_t bytes;
};

std::map<void *, piece> pieces;

size_t padded(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

}  //  namespace

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t used = padded(bytes, 16), room = padded(used, page);
    void *pages = mmap(NULL, room + page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return cudaErrorMemoryAllocation;
    mprotect((char *)pages + room, page, PROT_NONE);
    *out = (char *)pages + room - used;
    pieces[*out] = piece{pages, room + page};
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    const auto found = pieces.find(memory);
    if (!memory) return cudaSuccess;
    if (found == pieces.end()) return cudaErrorInvalidValue;
    munmap(found->second.pages, found->second.bytes);
    pieces.erase(found);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind)
{
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaSuccess ? "no error" : "an error of the card made of lanes";
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int)
{
    memset(out, 0, sizeof *out);
    strcpy(out->name, "lanes");
    out->major = 8;
    out->multiProcessorCount = 3;
    return cudaSuccess;
}

//  Its instructions are one kind of card's only.
cudaError_t gpu_conv_wgmma(const gpu_fused_args *, const void *, void *, int,
                           cudaStream_t)
{
    return cudaErrorNoKernelImageForDevice;
}

}  //  extern "C"
