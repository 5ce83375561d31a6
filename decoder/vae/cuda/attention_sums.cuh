//  attention_sums.cuh - the second kernel of attention: weights by values
//
//  A block has 128 rows and half of the channels and goes over all keys, 64 at a time;
//  the two blocks of a cluster read the same values, each half of them for both. Weights
//  go to the tensor cores through registers, where they are multiplied by what their tile
//  lacks to the row's largest score.

#ifndef LUNA_DECODER_VAE_CUDA_ATTENTION_SUMS_CUH
#define LUNA_DECODER_VAE_CUDA_ATTENTION_SUMS_CUH

#include "decoder/vae/cuda/attention.cuh"

namespace sums {

enum {
    HALVES = 2,
    HALF = CHANNELS / HALVES,  //  channels of a block
    KEYS = 64,                 //  of a stage
    STAGES = 4,
    BOXES = HALF / LINE,
    BOX_BYTES = KEYS * LINE_BYTES,
    WEIGHT_BYTES = KEYS / STEP * STEP_BYTES,  //  of one warpgroup
    FULL = 0,
    EMPTY = FULL + STAGES,
    BARRIERS = EMPTY + STAGES
};

struct stage_memory {
    unsigned char value[BOXES][BOX_BYTES];
    unsigned char weight[2][WEIGHT_BYTES];
};

struct shared_memory {
    stage_memory stage[STAGES];
    unsigned long long barrier[BARRIERS];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ uint32_t barrier_at(shared_memory &s, int which)
{
    return shared_address(&s.barrier[which]);
}

__device__ void start_barriers(shared_memory &s)
{
    for (int i = 0; i < STAGES; i++) {
        barrier_init(barrier_at(s, FULL + i), 1);
        barrier_init(barrier_at(s, EMPTY + i), 2 * RELEASES);
    }
    barrier_init_done();
}

//  One thread.
__device__ void bring(const attention_work &w, const CUtensorMap &values,
                      shared_memory &s, int cluster, int clusters, int rank)
{
    ring<STAGES> stage;
    for (int item = cluster; item < w.blocks * HALVES; item += clusters) {
        const int group = (item / HALVES * 2 + rank) * 2;
        const int channel = item % HALVES * HALF + rank * (HALF / 2);
        const unsigned char *from[2] = {weights_at(w, group, 0),
                                        weights_at(w, group + 1, 0)};
#pragma unroll 1
        for (int key = 0; key < w.tiles * TILE_KEYS; key += KEYS, stage.next()) {
            stage_memory &to = s.stage[stage.at];
            const uint32_t full = barrier_at(s, FULL + stage.at);
            barrier_wait(barrier_at(s, EMPTY + stage.at), stage.parity ^ 1);
            barrier_expect(full, sizeof(stage_memory));
#pragma unroll
            for (int i = 0; i < BOXES / 2; i++)
                box_copy_to(3, shared_address(to.value[rank * (BOXES / 2) + i]), &values,
                            channel + i * LINE, key, full);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                bulk_copy(shared_address(to.weight[i]), from[i], WEIGHT_BYTES, full);
                from[i] += WEIGHT_BYTES;
            }
        }
    }
}

//  Of a thread's two rows, eight apart.
struct rows {
    float most[2];     //  of the whole row
    float inverse[2];  //  of the sum of its weights
};

__device__ __forceinline__ void read_rows(const attention_work &w, size_t row, rows &r)
{
#pragma unroll
    for (int i = 0; i < 2; i++, row += 8) {
        float most[SEGMENTS], sum = 0.0F;
        r.most[i] = -INFINITY;
#pragma unroll
        for (int k = 0; k < SEGMENTS; k++) {
            most[k] = -INFINITY;
            if (k < w.segments)
                most[k] =
                    w.most[(size_t)(w.first_tile[k + 1] - 1) * padded_rows(w) + row];
            r.most[i] = fmaxf(r.most[i], most[k]);
        }
#pragma unroll
        for (int k = 0; k < SEGMENTS; k++)
            if (k < w.segments)
                sum += w.sums[(size_t)k * padded_rows(w) + row] *
                       exponential(most[k] - r.most[i]);
        r.inverse[i] = 1.0F / (sum * (1 << LATER_EXPONENT));
    }
}

template <typename T>
__device__ __forceinline__ typename pair_of<T>::type factor_of(float most, float row_most)
{
    const float factor = exponential(most - row_most + LATER_EXPONENT);
    return narrow(factor, factor, T());
}

template <typename P>
__device__ __forceinline__ void scale_words(words &v, P upper, P lower)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        P two;
        memcpy(&two, &v.w[i], 4);
        two = __hmul2(two, i % 2 ? lower : upper);
        memcpy(&v.w[i], &two, 4);
    }
}

struct multiplier {
    ring<STAGES> stage;
    int let_go;  //  stage that the products under way read; -1: none
    int group, thread, lane, rank;
};

__device__ __forceinline__ void let_go(shared_memory &s, multiplier &m)
{
    if (m.let_go >= 0) let_go_of_both(barrier_at(s, EMPTY + m.let_go), m.lane, m.rank);
    m.let_go = -1;
}

//  64 keys.
template <typename T, typename P>
__device__ __forceinline__ void multiply(shared_memory &s, multiplier &m,
                                         float (&sum)[128], words (&weight)[KEYS / STEP],
                                         P upper, P lower, int add)
{
    const stage_memory &from = s.stage[m.stage.at];
    barrier_wait(barrier_at(s, FULL + m.stage.at), m.stage.parity);
#pragma unroll
    for (int k = 0; k < KEYS / STEP; k++)
        weight[k] = *reinterpret_cast<const words *>(from.weight[m.group] +
                                                     k * STEP_BYTES + m.thread * 16);
#pragma unroll
    for (int k = 0; k < KEYS / STEP; k++) scale_words(weight[k], upper, lower);
    const uint64_t b = turned_matrix_at(shared_address(from.value), BOX_BYTES);
    products_fence();
#pragma unroll
    for (int k = 0; k < KEYS / STEP; k++)
        wide_product(sum, weight[k].w, b + k * (STEP * LINE_BYTES / 16), add || k > 0,
                     T());
    products_commit();
    products_wait<1>();
    let_go(s, m);
    m.let_go = m.stage.at;
    m.stage.next();
}

template <typename T>
__device__ __forceinline__ void store(const attention_work &w, const float (&sum)[128],
                                      const rows &r, int row, int channel)
{
    typedef typename pair_of<T>::type P;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (row + 8 * i >= w.rows) continue;
        P *to = reinterpret_cast<P *>(
            static_cast<T *>(w.y) + (size_t)(w.first + row + 8 * i) * w.pitch + channel);
#pragma unroll
        for (int k = 0; k < HALF / 8; k++)
            if (channel + 8 * k < w.pitch)
                to[4 * k] = narrow(sum[4 * k + 2 * i] * r.inverse[i],
                                   sum[4 * k + 2 * i + 1] * r.inverse[i], T());
    }
}

template <typename T>
__device__ __forceinline__ void multiply_item(const attention_work &w, shared_memory &s,
                                              multiplier &m, int group, int channel)
{
    typedef typename pair_of<T>::type P;
    const int row = group * GROUP_ROWS + m.thread / 32 * 16 + m.lane / 4;
    const float *most = w.most + row;
    float sum[128];
    words even[KEYS / STEP], odd[KEYS / STEP];
    rows r;
    read_rows(w, row, r);
    float upper = most[0], lower = most[8];
#pragma unroll 1
    for (int tile = 0; tile < w.tiles; tile++) {
        const P factors[2] = {factor_of<T>(upper, r.most[0]),
                              factor_of<T>(lower, r.most[1])};
        if (tile + 1 < w.tiles) most += padded_rows(w);
        upper = most[0];
        lower = most[8];
        multiply<T>(s, m, sum, even, factors[0], factors[1], tile > 0);
        multiply<T>(s, m, sum, odd, factors[0], factors[1], 1);
    }
    products_wait<0>();
    let_go(s, m);
    hold(sum);
    store<T>(w, sum, r, row, channel + m.lane % 4 * 2);
}

template <typename T>
__device__ void multiply_tiles(const attention_work &w, shared_memory &s, int cluster,
                               int clusters, int rank, int group, int thread)
{
    multiplier m;
    m.let_go = -1;
    m.group = group;
    m.thread = thread;
    m.lane = thread % 32;
    m.rank = rank;
    for (int item = cluster; item < w.blocks * HALVES; item += clusters)
        multiply_item<T>(w, s, m, (item / HALVES * 2 + rank) * 2 + group,
                         item % HALVES * HALF);
}

#endif

}  //  namespace sums

#endif
