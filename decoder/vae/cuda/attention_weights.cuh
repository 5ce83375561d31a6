//  attention_weights.cuh - the first kernel of attention: queries by keys to weights
//
//  A block keeps 128 queries in shared memory and goes over the keys, 128 at a time, 64
//  channels at a time; the two blocks of a cluster read the same keys, each half of them
//  for both. A warpgroup has 64 queries and two sets of sums: while the tensor cores make
//  one, it turns the other into weights.

#ifndef LUNA_DECODER_VAE_CUDA_ATTENTION_WEIGHTS_CUH
#define LUNA_DECODER_VAE_CUDA_ATTENTION_WEIGHTS_CUH

#include "decoder/vae/cuda/attention.cuh"

namespace weights {

enum {
    CHUNKS = CHANNELS / LINE,
    STAGES = 6,
    QUERY_BYTES = BLOCK_ROWS * LINE_BYTES,  //  of one chunk
    KEY_BYTES = TILE_KEYS * LINE_BYTES,
    QUERY_FULL = 0,
    QUERY_EMPTY = QUERY_FULL + CHUNKS,
    KEY_FULL = QUERY_EMPTY + CHUNKS,
    KEY_EMPTY = KEY_FULL + STAGES,
    BARRIERS = KEY_EMPTY + STAGES
};

struct shared_memory {
    unsigned char query[CHUNKS][QUERY_BYTES];
    unsigned char key[STAGES][KEY_BYTES];
    unsigned long long barrier[BARRIERS];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ uint32_t barrier_at(shared_memory &s, int which)
{
    return shared_address(&s.barrier[which]);
}

__device__ void start_barriers(shared_memory &s)
{
    for (int i = 0; i < CHUNKS; i++) {
        barrier_init(barrier_at(s, QUERY_FULL + i), 1);
        barrier_init(barrier_at(s, QUERY_EMPTY + i), RELEASES);
    }
    for (int i = 0; i < STAGES; i++) {
        barrier_init(barrier_at(s, KEY_FULL + i), 1);
        barrier_init(barrier_at(s, KEY_EMPTY + i), 2 * RELEASES);
    }
    barrier_init_done();
}

//  Goes over the tiles of a cluster: item after item, each PAIR_ROWS queries and one
//  segment of the keys.
struct walk {
    int item, step, block, segment, tile, from, end;
    uint32_t round;  //  parity of the items before
    __device__ walk(const attention_work &w, int cluster, int clusters)
        : item(cluster), step(clusters), round(0)
    {
        look(w);
    }
    __device__ void look(const attention_work &w)
    {
        block = item / w.segments;
        segment = item - block * w.segments;
        tile = from = w.first_tile[segment];
        end = w.first_tile[segment + 1];
    }
    __device__ bool next(const attention_work &w)
    {
        if (++tile < end) return true;
        item += step;
        round ^= 1;
        if (item >= w.blocks * w.segments) return false;
        look(w);
        return true;
    }
    __device__ bool first() const
    {
        return tile == from;
    }
    __device__ bool last() const
    {
        return tile + 1 == end;
    }
};

//  One thread.
__device__ void bring(const attention_work &w, const CUtensorMap &queries,
                      const CUtensorMap &keys, shared_memory &s, walk at, int rank)
{
    ring<STAGES> stage;
    do {
        const int row = w.first + at.block * PAIR_ROWS + rank * BLOCK_ROWS;
        const int key = at.tile * TILE_KEYS + rank * (TILE_KEYS / 2);
#pragma unroll 1
        for (int c = 0; c < CHUNKS; c++, stage.next()) {
            const uint32_t full = barrier_at(s, KEY_FULL + stage.at);
            if (at.first()) {
                const uint32_t there = barrier_at(s, QUERY_FULL + c);
                barrier_wait(barrier_at(s, QUERY_EMPTY + c), at.round ^ 1);
                barrier_expect(there, QUERY_BYTES);
                box_copy(shared_address(s.query[c]), &queries, c * LINE, row, there);
            }
            barrier_wait(barrier_at(s, KEY_EMPTY + stage.at), stage.parity ^ 1);
            barrier_expect(full, KEY_BYTES);
            box_copy_to(3, shared_address(s.key[stage.at]) + rank * (KEY_BYTES / 2),
                        &keys, c * LINE, key, full);
        }
    } while (at.next(w));
}

//  Sums whose weights are to be stored.
struct scored {
    unsigned char *weights;  //  this thread's
    size_t most, sums;       //  its first row's places
    int keys;                //  that there are, from its first on
    bool last;               //  of its segment
};

//  Of a thread's two rows, eight apart.
struct rows {
    float most[2], sum[2], offset[2];
};

struct multiplier {
    ring<STAGES> stage;
    int let_go;  //  stage that the products under way read; -1: none
    int group, thread, lane, rank;
};

__device__ __forceinline__ scored place_of(const attention_work &w, const walk &at,
                                           const multiplier &m)
{
    scored to;
    const int group = (at.block * 2 + m.rank) * 2 + m.group;
    const size_t row = group * GROUP_ROWS + m.thread / 32 * 16 + m.lane / 4;
    to.weights = weights_at(w, group, at.tile) + m.thread * 16;
    to.most = (size_t)at.tile * padded_rows(w) + row;
    to.sums = (size_t)at.segment * padded_rows(w) + row;
    to.keys = w.tokens - at.tile * TILE_KEYS;
    to.last = at.last();
    return to;
}

__device__ __forceinline__ void mask(float (&sum)[64], int keys, int lane)
{
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= keys) sum[i] = -INFINITY;
}

__device__ __forceinline__ float of_quad(float most)
{
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
}

//  What the weights of a tile are relative to.
__device__ __forceinline__ void find_most(const attention_work &w, float (&sum)[64],
                                          rows &r, const scored &to, int lane)
{
    if (to.keys < TILE_KEYS) mask(sum, to.keys, lane);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most[4] = {sum[2 * i], sum[2 * i + 1], sum[2 * i + 4], sum[2 * i + 5]};
#pragma unroll
        for (int k = 8; k < 64; k += 8) {
            most[0] = fmaxf(most[0], sum[k + 2 * i]);
            most[1] = fmaxf(most[1], sum[k + 2 * i + 1]);
            most[2] = fmaxf(most[2], sum[k + 2 * i + 4]);
            most[3] = fmaxf(most[3], sum[k + 2 * i + 5]);
        }
        const float top =
            of_quad(fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3])));
        const float now = fmaxf(r.most[i], ceilf(top * w.scale));
        r.sum[i] *= exponential(r.most[i] - now);
        r.most[i] = now;
        r.offset[i] = STORED_EXPONENT - now;
        if (lane % 4 == 0) w.most[to.most + 8 * i] = now;
    }
}

//  The weights of 16 keys.
template <typename T, int STEP_AT>
__device__ __forceinline__ void finish_step(const attention_work &w,
                                            const float (&sum)[64], rows &r,
                                            const scored &to)
{
    float v[LANES];
    vector<T> out;
#pragma unroll
    for (int k = 0; k < LANES; k++)
        v[k] = exponential(fmaf(sum[LANES * STEP_AT + k], w.scale, r.offset[k / 2 % 2]));
    out.from(v);
    out.write(reinterpret_cast<T *>(to.weights + STEP_AT * STEP_BYTES));
    out.to(v);
    r.sum[0] += (v[0] + v[1]) + (v[4] + v[5]);
    r.sum[1] += (v[2] + v[3]) + (v[6] + v[7]);
}

__device__ __forceinline__ void start_rows(rows &r)
{
    //  Not infinite: there is no difference of infinities.
    r.most[0] = r.most[1] = -1e30F;
    r.sum[0] = r.sum[1] = 0.0F;
}

__device__ __forceinline__ void finish_rows(const attention_work &w, rows &r,
                                            const scored &to, int lane)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = r.sum[i] + __shfl_xor_sync(0xffffffffu, r.sum[i], 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (lane % 4 == 0) w.sums[to.sums + 8 * i] = sum;
    }
    start_rows(r);
}

//  64 channels of a tile, and a part of what is to be done with the tile before.
template <typename T, int CHUNK, bool FINISH>
__device__ __forceinline__ void multiply_chunk(const attention_work &w, shared_memory &s,
                                               multiplier &m, float (&sum)[64],
                                               const walk &at, float (&before)[64],
                                               rows &r, const scored &to)
{
    if (at.first()) barrier_wait(barrier_at(s, QUERY_FULL + CHUNK), at.round);
    barrier_wait(barrier_at(s, KEY_FULL + m.stage.at), m.stage.parity);
    const uint64_t a = matrix_at(
        shared_address(s.query[CHUNK]) + m.group * GROUP_ROWS * LINE_BYTES, 1024);
    const uint64_t b = matrix_at(shared_address(s.key[m.stage.at]), 1024);
    products_fence();
#pragma unroll
    for (int k = 0; k < LINE / 16; k++)
        product(sum, a + 2 * k, b + 2 * k, CHUNK > 0 || k > 0, T());
    products_commit();
    products_wait<1>();
    if (m.let_go >= 0)
        let_go_of_both(barrier_at(s, KEY_EMPTY + m.let_go), m.lane, m.rank);
    if (m.lane == 2 && (CHUNK > 0 ? at.last() : FINISH && to.last))
        barrier_arrive(barrier_at(s, QUERY_EMPTY + (CHUNK + CHUNKS - 1) % CHUNKS));
    m.let_go = m.stage.at;
    m.stage.next();
    if (!FINISH) return;
    if (CHUNK == 0) {
        hold(before);
        find_most(w, before, r, to, m.lane);
    }
    finish_step<T, CHUNK>(w, before, r, to);
}

template <typename T, bool FINISH>
__device__ __forceinline__ void multiply(const attention_work &w, shared_memory &s,
                                         multiplier &m, float (&sum)[64], const walk &at,
                                         float (&before)[64], rows &r, const scored &to)
{
    multiply_chunk<T, 0, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 1, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 2, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 3, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 4, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 5, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 6, FINISH>(w, s, m, sum, at, before, r, to);
    multiply_chunk<T, 7, FINISH>(w, s, m, sum, at, before, r, to);
    if (FINISH && to.last) finish_rows(w, r, to, m.lane);
}

//  The last tile, with nothing beside it.
template <typename T>
__device__ __forceinline__ void finish(const attention_work &w, float (&sum)[64], rows &r,
                                       const scored &to, int lane)
{
    products_wait<0>();
    hold(sum);
    find_most(w, sum, r, to, lane);
    finish_step<T, 0>(w, sum, r, to);
    finish_step<T, 1>(w, sum, r, to);
    finish_step<T, 2>(w, sum, r, to);
    finish_step<T, 3>(w, sum, r, to);
    finish_step<T, 4>(w, sum, r, to);
    finish_step<T, 5>(w, sum, r, to);
    finish_step<T, 6>(w, sum, r, to);
    finish_step<T, 7>(w, sum, r, to);
    finish_rows(w, r, to, lane);
}

template <typename T>
__device__ void multiply_tiles(const attention_work &w, shared_memory &s, walk at,
                               int group, int thread, int rank)
{
    static_assert(CHUNKS == 8 && TILE_KEYS / STEP == 8, "a step of keys with each chunk");
    float left[64], right[64];
    rows r;
    multiplier m;
    m.let_go = -1;
    m.group = group;
    m.thread = thread;
    m.lane = thread % 32;
    m.rank = rank;
    start_rows(r);
    scored to = place_of(w, at, m);
    multiply<T, false>(w, s, m, left, at, right, r, to);
#pragma unroll 1
    for (;;) {
        if (!at.next(w)) {
            finish<T>(w, left, r, to, m.lane);
            break;
        }
        multiply<T, true>(w, s, m, right, at, left, r, to);
        to = place_of(w, at, m);
        if (!at.next(w)) {
            finish<T>(w, right, r, to, m.lane);
            break;
        }
        multiply<T, true>(w, s, m, left, at, right, r, to);
        to = place_of(w, at, m);
    }
}

#endif

}  //  namespace weights

#endif
