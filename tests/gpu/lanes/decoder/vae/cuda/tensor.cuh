//  tensor.cuh - decoder/vae/cuda/tensor.cuh for lanes. Which lane holds what is in the
//  PTX manual, "Matrix Fragments for mma.m16n8k16" and ldmatrix.

#ifndef LUNA_DECODER_VAE_CUDA_TENSOR_CUH
#define LUNA_DECODER_VAE_CUDA_TENSOR_CUH

inline void load_matrices(uint32_t (&m)[4], uint32_t row)
{
    const int lane = (int)threadIdx.x % lanes::WARP;
    const unsigned char *rows = lanes::put(&row, sizeof row);
    for (int i = 0; i < 4; i++) {
        uint32_t at;
        memcpy(&at, rows + (8 * i + lane / 4) * lanes::SLOT_BYTES, sizeof at);
        if (at % 16) abort();
        memcpy(&m[i], lanes::window + at + lane % 4 * 4, 4);
    }
}

namespace lanes {

template <typename T>
float half_of(uint32_t word, int which)
{
    T value;
    const uint16_t bits = (uint16_t)(word >> 16 * which);
    memcpy(&value, &bits, sizeof value);
    return (float)value;
}

//  One lane's share of both factors: [register][half].
struct factors {
    float a[4][2], b[2][2];
};

//  Row g + 8 * low of a, column n of b, over all 16.
inline float sum_of(const unsigned char *all, int g, int low, int n)
{
    float sum = 0.0F;
    for (int quad = 0; quad < 4; quad++) {
        const factors &left =
            *reinterpret_cast<const factors *>(all + (4 * g + quad) * SLOT_BYTES);
        const factors &right =
            *reinterpret_cast<const factors *>(all + (4 * n + quad) * SLOT_BYTES);
        for (int high = 0; high < 2; high++)
            for (int k = 0; k < 2; k++)
                sum += left.a[2 * high + low][k] * right.b[high][k];
    }
    return sum;
}

template <typename T>
void add_product(float (&sum)[4], const uint32_t (&a)[4], const uint32_t *b)
{
    const int lane = (int)threadIdx.x % WARP;
    factors mine;
    for (int i = 0; i < 8; i++) mine.a[i / 2][i % 2] = half_of<T>(a[i / 2], i % 2);
    for (int i = 0; i < 4; i++) mine.b[i / 2][i % 2] = half_of<T>(b[i / 2], i % 2);
    const unsigned char *all = put(&mine, sizeof mine);
    for (int i = 0; i < 4; i++)
        sum[i] += sum_of(all, lane / 4, i / 2, 2 * (lane % 4) + i % 2);
}

}  //  namespace lanes

template <typename T>
void product(float (&sum)[4], const uint32_t (&a)[4], const uint32_t *b, T)
{
    lanes::add_product<T>(sum, a, b);
}

inline void product_16(uint32_t (&sum)[2], const uint32_t (&a)[4], const uint32_t *b)
{
    float wide[4];
    for (int i = 0; i < 4; i++) wide[i] = lanes::half_of<__half>(sum[i / 2], i % 2);
    lanes::add_product<__half>(wide, a, b);
    for (int i = 0; i < 2; i++) {
        const __half2 two = __floats2half2_rn(wide[2 * i], wide[2 * i + 1]);
        memcpy(&sum[i], &two, 4);
    }
}

#endif
