//  hopper.cuh - what sm_90 has beyond C++: barriers in shared memory, the copy engine's
//  bulk copies, matrix products of a warpgroup. Names as in the PTX manual.

#ifndef LUNA_DECODER_VAE_CUDA_HOPPER_CUH
#define LUNA_DECODER_VAE_CUDA_HOPPER_CUH

#include "decoder/vae/cuda/copies.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

//  ---- mbarrier ----------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

//  Makes barriers seen by the copy engine too.
__device__ __forceinline__ void barrier_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier)
                 : "memory");
}

//  Arrives, and has the barrier wait for `bytes` of the copy engine as well.
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
            barrier),
        "r"(bytes)
        : "memory");
}

//  Until the phase of this parity is over.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
        "@done bra over;\n"
        "bra again;\n"
        "over:\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

//  Arrives at the barrier in the same place of block `rank` of the cluster: what was read
//  before may be overwritten. What was written is not seen by the other block for it;
//  that would have the warp wait for all of its stores.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t rank)
{
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}\n" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

//  Counts through a ring; the parity of the round.
template <int COUNT>
struct ring {
    int at = 0;
    uint32_t parity = 0;
    __device__ void next()
    {
        if (++at < COUNT) return;
        at = 0;
        parity ^= 1;
    }
};

//  ---- clusters ----------------------------------------------------------------------

__device__ __forceinline__ uint32_t cluster_rank()
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

//  All threads of all blocks of the cluster.
__device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::
                     : "memory");
}

//  ---- copies ------------------------------------------------------------------------

__device__ __forceinline__ void bulk_copy(uint32_t to, const void *from, uint32_t bytes,
                                          uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
        "%2, "
        "[%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

//  A box of a matrix, as its tensor map says, from column x and row y on.
__device__ __forceinline__ void box_copy(uint32_t to, const void *map, int x, int y,
                                         uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(x), "r"(y)
        : "memory");
}

//  The same to the same place of each block of the cluster in `blocks`, one bit a block,
//  and to each one's barrier.
__device__ __forceinline__ void box_copy_to(uint16_t blocks, uint32_t to, const void *map,
                                            int x, int y, uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
        "l"(map), "r"(barrier), "h"(blocks), "r"(x), "r"(y)
        : "memory");
}

//  A box of a matrix of three dimensions.
__device__ __forceinline__ void box_copy(uint32_t to, const void *map, int first, int x,
                                         int y, uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(first), "r"(x), "r"(y)
        : "memory");
}

//  Place of a box of five dimensions.
struct box_place {
    int at[5];
};

__device__ __forceinline__ void box_copy(uint32_t to, const void *map, const box_place &p,
                                         uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(p.at[0]), "r"(p.at[1]), "r"(p.at[2]), "r"(p.at[3]),
        "r"(p.at[4])
        : "memory");
}

//  The other way; with boxes_commit it belongs to a group.
__device__ __forceinline__ void box_store(const void *map, const box_place &p,
                                          uint32_t from)
{
    asm volatile(
        "cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group"
        " [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(map),
        "r"(from), "r"(p.at[0]), "r"(p.at[1]), "r"(p.at[2]), "r"(p.at[3]), "r"(p.at[4])
        : "memory");
}

__device__ __forceinline__ void boxes_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

//  Until shared memory of all but LEFT groups of this thread has been read.
template <int LEFT>
__device__ __forceinline__ void boxes_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(LEFT) : "memory");
}

//  Until they are all where they belong.
__device__ __forceinline__ void boxes_stored()
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

//  Arrives when all copies of this thread are there.
__device__ __forceinline__ void copies_arrive(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier)
                 : "memory");
}

//  Ordinary stores to shared memory before it are seen by the tensor cores.
__device__ __forceinline__ void proxy_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

//  ---- wgmma -------------------------------------------------------------------------

__device__ __forceinline__ void products_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void products_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

//  Until no more than LEFT groups are under way.
template <int LEFT>
__device__ __forceinline__ void products_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

//  Before here the compiler must not use sums that products have made.
template <int COUNT>
__device__ __forceinline__ void hold(float (&sum)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(sum[i])::"memory");
}

//  A matrix in shared memory: rows of 128 bytes in groups of eight, the 16-byte columns
//  of a row exchanged by the row's number (swizzle of 128 bytes). The exchange goes by
//  address bits, so that a matrix may start at any row.
__device__ __forceinline__ uint64_t matrix_at(uint32_t address, uint32_t group_bytes)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 |
           (uint64_t)(group_bytes >> 4) << 32 | (uint64_t)1 << 62;
}

//  A matrix that lies turned: its rows, of 64 values each in a block of eight rows, are
//  what a product sums over; `next_bytes` to the next 64 values of the same rows.
__device__ __forceinline__ uint64_t turned_matrix_at(uint32_t address,
                                                     uint32_t next_bytes)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(next_bytes >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

#define LUNA_8(a, i)                                                            \
    "+f"(a[i]), "+f"(a[i + 1]), "+f"(a[i + 2]), "+f"(a[i + 3]), "+f"(a[i + 4]), \
        "+f"(a[i + 5]), "+f"(a[i + 6]), "+f"(a[i + 7])
#define LUNA_PRODUCT(TYPES)                                                           \
    asm volatile(                                                                     \
        "{\n"                                                                         \
        ".reg .pred add;\n"                                                           \
        "setp.ne.b32 add, %66, 0;\n"                                                  \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES                          \
        " "                                                                           \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "     \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, " \
        "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
        "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, " \
        "%61, %62, %63}, %64, %65, add, 1, 1, 0, 0;\n"                                \
        "}\n"                                                                         \
        : LUNA_8(sum, 0), LUNA_8(sum, 8), LUNA_8(sum, 16), LUNA_8(sum, 24),           \
          LUNA_8(sum, 32), LUNA_8(sum, 40), LUNA_8(sum, 48), LUNA_8(sum, 56)          \
        : "l"(a), "l"(b), "r"(add))

//  sum[64 rows, 128] (= or +=) a[64, 16] * b[128, 16]^T.
__device__ __forceinline__ void product(float (&sum)[64], uint64_t a, uint64_t b, int add,
                                        __half)
{
    LUNA_PRODUCT("f16.f16");
}

__device__ __forceinline__ void product(float (&sum)[64], uint64_t a, uint64_t b, int add,
                                        __nv_bfloat16)
{
    LUNA_PRODUCT("bf16.bf16");
}

#define LUNA_NARROW_PRODUCT(TYPES)                                                    \
    asm volatile(                                                                     \
        "{\n"                                                                         \
        ".reg .pred add;\n"                                                           \
        "setp.ne.b32 add, %34, 0;\n"                                                  \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES                           \
        " "                                                                           \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "     \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, " \
        "%31}, %32, %33, add, 1, 1, 0, 0;\n"                                          \
        "}\n"                                                                         \
        : LUNA_8(sum, 0), LUNA_8(sum, 8), LUNA_8(sum, 16), LUNA_8(sum, 24)            \
        : "l"(a), "l"(b), "r"(add))

//  sum[64 rows, 64] (= or +=) a[64, 16] * b[64, 16]^T.
__device__ __forceinline__ void product(float (&sum)[32], uint64_t a, uint64_t b, int add,
                                        __half)
{
    LUNA_NARROW_PRODUCT("f16.f16");
}

__device__ __forceinline__ void product(float (&sum)[32], uint64_t a, uint64_t b, int add,
                                        __nv_bfloat16)
{
    LUNA_NARROW_PRODUCT("bf16.bf16");
}

#define LUNA_WIDE_PRODUCT(TYPES)                                                       \
    asm volatile(                                                                      \
        "{\n"                                                                          \
        ".reg .pred add;\n"                                                            \
        "setp.ne.b32 add, %133, 0;\n"                                                  \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPES                           \
        " "                                                                            \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
        "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "  \
        "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "  \
        "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, "  \
        "%77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "  \
        "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, " \
        "%106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "     \
        "%118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "                \
        "{%128, %129, %130, %131}, %132, add, 1, 1, 1;\n"                              \
        "}\n"                                                                          \
        : LUNA_8(sum, 0), LUNA_8(sum, 8), LUNA_8(sum, 16), LUNA_8(sum, 24),            \
          LUNA_8(sum, 32), LUNA_8(sum, 40), LUNA_8(sum, 48), LUNA_8(sum, 56),          \
          LUNA_8(sum, 64), LUNA_8(sum, 72), LUNA_8(sum, 80), LUNA_8(sum, 88),          \
          LUNA_8(sum, 96), LUNA_8(sum, 104), LUNA_8(sum, 112), LUNA_8(sum, 120)        \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))

//  sum[64 rows, 256] (= or +=) a[64, 16] * b[16, 256], with a in registers and b turned.
__device__ __forceinline__ void wide_product(float (&sum)[128],
                                             const unsigned int (&a)[4], uint64_t b,
                                             int add, __half)
{
    LUNA_WIDE_PRODUCT("f16.f16");
}

__device__ __forceinline__ void wide_product(float (&sum)[128],
                                             const unsigned int (&a)[4], uint64_t b,
                                             int add, __nv_bfloat16)
{
    LUNA_WIDE_PRODUCT("bf16.bf16");
}

#undef LUNA_WIDE_PRODUCT
#undef LUNA_NARROW_PRODUCT
#undef LUNA_PRODUCT
#undef LUNA_8

//  Registers of each of the warpgroup's threads from here on.
template <int COUNT>
__device__ __forceinline__ void take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ __forceinline__ void give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

#endif
