//  tensor.cuh - matrix products of a warp, sm_80 and up. Names as in the PTX manual.

#ifndef LUNA_DECODER_VAE_CUDA_TENSOR_CUH
#define LUNA_DECODER_VAE_CUDA_TENSOR_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

//  Four matrices of 8 rows of 16 bytes; lane 8 i + j has the address of row j of the
//  i-th.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(row)
                 : "memory");
}

//  sum[16, 8] += a[16, 16] * b[8, 16]^T. A lane holds rows l / 4 and l / 4 + 8 of the
//  sum, columns 2 (l % 4) and the next.
#define LUNA_PRODUCT(TYPES)                                                              \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPES                                   \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"           \
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                         \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ __forceinline__ void product(float (&sum)[4], const uint32_t (&a)[4],
                                        const uint32_t *b, __half)
{
    LUNA_PRODUCT("f16.f16");
}

__device__ __forceinline__ void product(float (&sum)[4], const uint32_t (&a)[4],
                                        const uint32_t *b, __nv_bfloat16)
{
    LUNA_PRODUCT("bf16.bf16");
}

#undef LUNA_PRODUCT

//  The same in 16 bits: rows l / 4 and l / 4 + 8, two columns a register.
__device__ __forceinline__ void product_16(uint32_t (&sum)[2], const uint32_t (&a)[4],
                                           const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, "
        "{%6, %7}, {%0, %1};"
        : "+r"(sum[0]), "+r"(sum[1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
