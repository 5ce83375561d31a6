//  Matrix products through cuBLASLt. The library counts columns first, so a row-major
//  product c = a b is asked for as its transpose: c' = b' a'.

#include "decoder/vae/cuda/gpu.h"

#include <stdlib.h>
#include <string.h>

struct gpu_gemm {
    gpu_gemm *next;
    gpu_gemm_problem problem;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};

static cudaDataType_t type_of(gpu_type type)
{
    if (type == GPU_FP16) return CUDA_R_16F;
    return type == GPU_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static cublasStatus_t describe(gpu_gemm *g)
{
    const gpu_gemm_problem *p = &g->problem;
    const cublasOperation_t turn = p->turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    //  Sums in fp32, and nothing less than fp32 inside when the values are fp32.
    cublasStatus_t s =
        cublasLtMatmulDescCreate(&g->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &turn,
                                           sizeof turn);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatrixLayoutCreate(&g->b, type_of(p->type), p->turned ? p->k : p->n,
                                       p->turned ? p->n : p->k, (int64_t)p->b_pitch);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatrixLayoutCreate(&g->a, type_of(p->type), p->k, p->m,
                                       (int64_t)p->a_pitch);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatrixLayoutCreate(&g->c, type_of(p->result), p->n, p->m,
                                       (int64_t)p->c_pitch);
    return s;
}

static cublasStatus_t choose(gpu_device *device, gpu_gemm *g)
{
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    cublasStatus_t s = cublasLtMatmulPreferenceCreate(&wish);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceSetAttribute(
            wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &device->workspace_bytes,
            sizeof device->workspace_bytes);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulAlgoGetHeuristic(device->lt, g->product, g->b, g->a, g->c, g->c,
                                           wish, 1, &found, &count);
    if (wish) (void)cublasLtMatmulPreferenceDestroy(wish);
    if (s == CUBLAS_STATUS_SUCCESS && count == 0) s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS) g->algorithm = found.algo;
    return s;
}

static void gemm_free(gpu_gemm *g)
{
    if (g->a) (void)cublasLtMatrixLayoutDestroy(g->a);
    if (g->b) (void)cublasLtMatrixLayoutDestroy(g->b);
    if (g->c) (void)cublasLtMatrixLayoutDestroy(g->c);
    if (g->product) (void)cublasLtMatmulDescDestroy(g->product);
    free(g);
}

static gpu_gemm *known(const gpu_device *device, const gpu_gemm_problem *problem)
{
    gpu_gemm *g = device->gemms;
    while (g && memcmp(&g->problem, problem, sizeof *problem) != 0) g = g->next;
    return g;
}

luna_err gpu_gemm_find(gpu_device *device, const gpu_gemm_problem *problem,
                       gpu_gemm **out)
{
    gpu_gemm *g = known(device, problem);
    if (!g) {
        g = calloc(1, sizeof *g);
        if (!g) return luna_error(LUNA_NO_MEMORY, "no memory for a matrix product");
        memcpy(&g->problem, problem, sizeof *problem);
        cublasStatus_t s = describe(g);
        if (s == CUBLAS_STATUS_SUCCESS) s = choose(device, g);
        if (s != CUBLAS_STATUS_SUCCESS) {
            gemm_free(g);
            return gpu_check_blas(s, "a matrix product");
        }
        g->next = device->gemms;
        device->gemms = g;
    }
    *out = g;
    return LUNA_OK;
}

luna_err gpu_gemm_run(gpu_device *device, const gpu_gemm *g, float scale, const void *a,
                      const void *b, void *c)
{
    const float zero = 0.0F;
    return gpu_check_blas(
        cublasLtMatmul(device->lt, g->product, &scale, b, g->b, a, g->a, &zero, c, g->c,
                       c, g->c, &g->algorithm, device->workspace, device->workspace_bytes,
                       device->stream),
        "a matrix product");
}

void gpu_gemms_free(gpu_device *device)
{
    while (device->gemms) {
        gpu_gemm *next = device->gemms->next;
        gemm_free(device->gemms);
        device->gemms = next;
    }
}
