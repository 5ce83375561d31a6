//  boxes.cuh - tensor maps: what the copy engine of sm_90 must know of a value to bring
//  boxes of it to shared memory and back

#ifndef LUNA_DECODER_VAE_CUDA_BOXES_CUH
#define LUNA_DECODER_VAE_CUDA_BOXES_CUH

#include "decoder/vae/cuda/kernels.h"

#include <cuda.h>
#include <string.h>

enum { BOX_RANK_MOST = 5 };

//  A matrix of 16-bit values and a box of it; the first of each is that of the values
//  next to each other, of which a box has 64, one row of 128 bytes.
struct boxes {
    int rank;
    cuuint64_t size[BOX_RANK_MOST];
    cuuint64_t pitch[BOX_RANK_MOST - 1];  //  bytes from one to the next, from the second
    cuuint32_t box[BOX_RANK_MOST];
};

typedef decltype(&cuTensorMapEncodeTiled) box_encoder;

//  The driver's, without a link to its library.
static inline cudaError_t find_box_encoder(box_encoder *out)
{
    void *found = NULL;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t error = cudaGetDriverEntryPointByVersion(
        "cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    if (error != cudaSuccess) return error;
    if (result != cudaDriverEntryPointSuccess) return cudaErrorInsufficientDriver;
    memcpy(out, &found, sizeof found);
    return cudaSuccess;
}

//  In shared memory the 16-byte columns of a row are exchanged by the row's number, as
//  matrix_at expects. What is outside is read as 0 and not written.
static inline cudaError_t map_boxes(gpu_type type, const void *matrix, const boxes &b,
                                    CUtensorMap *out)
{
    const cuuint32_t step[BOX_RANK_MOST] = {1, 1, 1, 1, 1};
    const CUtensorMapDataType is = type == GPU_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                    : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    box_encoder encode = NULL;
    const cudaError_t error = find_box_encoder(&encode);
    if (error != cudaSuccess) return error;
    const CUresult result =
        encode(out, is, (cuuint32_t)b.rank, const_cast<void *>(matrix), b.size, b.pitch,
               b.box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#endif
