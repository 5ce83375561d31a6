//  Attention on the tensor cores of sm_90: no pass over memory for the softmax.
//
//  attention_weights.cuh makes weights, attention_sums.cuh multiplies them by the values;
//  attention.cuh says how. Both go over their work with clusters of two blocks that stay.

#include "decoder/vae/cuda/attention_sums.cuh"
#include "decoder/vae/cuda/attention_weights.cuh"
#include "decoder/vae/cuda/boxes.cuh"

namespace {

template <typename T>
__global__ void __launch_bounds__(THREADS, 1)
    attention_weights(const __grid_constant__ attention_work work,
                      const __grid_constant__ CUtensorMap queries,
                      const __grid_constant__ CUtensorMap keys)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    weights::shared_memory &s = *reinterpret_cast<weights::shared_memory *>(memory);
    const int group = threadIdx.x / GROUP, thread = threadIdx.x % GROUP;
    const int rank = (int)cluster_rank();
    const weights::walk at(work, (int)blockIdx.x / 2, (int)gridDim.x / 2);
    if (threadIdx.x == 0) weights::start_barriers(s);
    cluster_sync();
    if (group < 2) {
        take_registers<MULTIPLIER_REGISTERS>();
        weights::multiply_tiles<T>(work, s, at, group, thread, rank);
    } else {
        give_registers<BRINGER_REGISTERS>();
        if (thread == 0) weights::bring(work, queries, keys, s, at, rank);
    }
    //  A block's memory must last until the other has no use for it any more.
    cluster_sync();
#else
    __trap();
#endif
}

template <typename T>
__global__ void __launch_bounds__(THREADS, 1)
    attention_sums(const __grid_constant__ attention_work work,
                   const __grid_constant__ CUtensorMap values)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    sums::shared_memory &s = *reinterpret_cast<sums::shared_memory *>(memory);
    const int group = threadIdx.x / GROUP, thread = threadIdx.x % GROUP;
    const int rank = (int)cluster_rank();
    const int cluster = (int)blockIdx.x / 2, clusters = (int)gridDim.x / 2;
    if (threadIdx.x == 0) sums::start_barriers(s);
    cluster_sync();
    if (group < 2) {
        take_registers<MULTIPLIER_REGISTERS>();
        sums::multiply_tiles<T>(work, s, cluster, clusters, rank, group, thread);
    } else {
        give_registers<BRINGER_REGISTERS>();
        if (thread == 0) sums::bring(work, values, s, cluster, clusters, rank);
    }
    cluster_sync();
#else
    __trap();
#endif
}

//  ---- tensor maps --------------------------------------------------------------------

//  Boxes of 64 channels of `rows` tokens; what is beyond the last of either is 0.
cudaError_t map_of(const gpu_attention_args *args, const void *matrix, int rows,
                   CUtensorMap *out)
{
    const boxes b = {2,
                     {(cuuint64_t)args->channels, args->tokens},
                     {gpu_room((size_t)args->channels) * 2},
                     {LINE, (cuuint32_t)rows}};
    return map_boxes(args->type, matrix, b, out);
}

struct maps {
    CUtensorMap queries, keys, values;
};

cudaError_t maps_of(const gpu_attention_args *args, maps *out)
{
    cudaError_t error = map_of(args, args->q, BLOCK_ROWS, &out->queries);
    if (error == cudaSuccess) error = map_of(args, args->k, TILE_KEYS / 2, &out->keys);
    if (error == cudaSuccess) error = map_of(args, args->v, sums::KEYS, &out->values);
    return error;
}

//  ---- the start ----------------------------------------------------------------------

attention_work cut(size_t tokens, size_t rows)
{
    attention_work w = {};
    w.tokens = (int)tokens;
    w.rows = (int)rows;
    w.blocks = (w.rows + PAIR_ROWS - 1) / PAIR_ROWS;
    w.tiles = (w.tokens + TILE_KEYS - 1) / TILE_KEYS;
    w.segments = w.tiles < SEGMENTS ? w.tiles : SEGMENTS;
    for (int i = 0; i <= w.segments; i++)
        w.first_tile[i] = (int)((long long)i * w.tiles / w.segments);
    return w;
}

size_t weight_bytes(const attention_work &w)
{
    return (size_t)padded_rows(w) * w.tiles * TILE_KEYS * 2;
}

attention_work work_of(const gpu_attention_args *args)
{
    attention_work w = cut(args->tokens, args->rows);
    w.pitch = (int)gpu_room((size_t)args->channels);
    w.first = (int)args->first;
    w.scale = args->scale * 1.4426950408889634F;
    w.weights = static_cast<unsigned char *>(args->scratch);
    w.most = reinterpret_cast<float *>(w.weights + weight_bytes(w));
    w.sums = w.most + (size_t)w.tiles * padded_rows(w);
    w.y = args->y;
    return w;
}

template <typename... P, typename... A>
cudaError_t start(void (*kernel)(P...), size_t shared_bytes, int items,
                  int multiprocessors, cudaStream_t stream, A... args)
{
    const int most = multiprocessors / 2, clusters = items < most ? items : most;
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (error != cudaSuccess) return error;
    cudaLaunchAttribute pairs = {};
    pairs.id = cudaLaunchAttributeClusterDimension;
    pairs.val.clusterDim.x = 2;
    pairs.val.clusterDim.y = pairs.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned int)clusters * 2);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &pairs;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, args...);
}

template <typename T>
cudaError_t start_both(const attention_work &w, const maps &m, int multiprocessors,
                       cudaStream_t stream)
{
    const cudaError_t error =
        start(attention_weights<T>, sizeof(weights::shared_memory), w.blocks * w.segments,
              multiprocessors, stream, w, m.queries, m.keys);
    if (error != cudaSuccess) return error;
    return start(attention_sums<T>, sizeof(sums::shared_memory), w.blocks * sums::HALVES,
                 multiprocessors, stream, w, m.values);
}

}  //  namespace

extern "C" size_t gpu_attention_bytes(size_t tokens, size_t rows)
{
    const attention_work w = cut(tokens, rows);
    return weight_bytes(w) +
           (size_t)padded_rows(w) * (w.tiles + w.segments) * sizeof(float);
}

extern "C" cudaError_t gpu_attention_wgmma(const gpu_attention_args *args,
                                           int multiprocessors, cudaStream_t stream)
{
    maps m;
    const cudaError_t error = maps_of(args, &m);
    if (error != cudaSuccess) return error;
    const attention_work w = work_of(args);
    if (args->type == GPU_BF16)
        return start_both<__nv_bfloat16>(w, m, multiprocessors, stream);
    return start_both<__half>(w, m, multiprocessors, stream);
}
