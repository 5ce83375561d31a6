//  Convolution as a matrix product on the ordinary cores: a block makes 128 pixels of 64
//  channels, 16 values of depth at a time. The depth runs over the taps and, in each, the
//  channels.

#include "decoder/vae/cuda/element.cuh"

enum { PIXELS = 128, OUTPUTS = 64, DEPTH = 16, THREADS = 256, PAD = 4 };

struct shared_tiles {
    float x[DEPTH][PIXELS + PAD];
    float w[DEPTH][OUTPUTS + PAD];
};

//  What a thread loads for the tiles: 8 channels of one pixel, 4 of one output.
template <typename T>
struct loader {
    const T *x;
    const T *w;
    int height, width, room, kernel, outputs;
    int row, column;  //  of the pixel; row is `height` past the last
    int output;       //  `outputs` past the last
    int x_slot, w_slot;

    __device__ void load_x(int tap, int channel, float (&v)[LANES]) const
    {
        const int r = row + tap / kernel - kernel / 2,
                  c = column + tap % kernel - kernel / 2;
        const int at = channel + x_slot * LANES;
        const bool inside = row < height && r >= 0 && r < height && c >= 0 && c < width;
        if (inside && at < room)
            load8(x + ((size_t)r * width + c) * room + at, v);
        else
            for (int k = 0; k < LANES; k++) v[k] = 0.0F;
    }
    __device__ void load_w(int tap, int channel, float (&v)[4]) const
    {
        const int at = channel + w_slot * 4;
        const size_t from = ((size_t)output * kernel * kernel + tap) * room + at;
        for (int k = 0; k < 4; k++)
            v[k] = output < outputs && at < room ? float(w[from + k]) : 0.0F;
    }
};

template <typename T>
__device__ loader<T> loader_of(const gpu_conv_args &a, const T *x, int room, int outputs)
{
    const size_t pixel = blockIdx.x * (size_t)PIXELS + threadIdx.x / 2;
    loader<T> l;
    l.x = x;
    l.w = static_cast<const T *>(a.weight);
    l.height = a.from.height;
    l.width = a.from.width;
    l.room = room;
    l.kernel = a.kernel;
    l.outputs = outputs;
    l.row = (int)(pixel / a.from.width);
    l.column = (int)(pixel % a.from.width);
    if (l.row > l.height) l.row = l.height;
    l.output = blockIdx.y * OUTPUTS + threadIdx.x / 4;
    l.x_slot = threadIdx.x % 2;
    l.w_slot = threadIdx.x % 4;
    return l;
}

__device__ void multiply(const shared_tiles &s, int row, int column, float (&sum)[8][4])
{
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        float x[8], w[4];
        *reinterpret_cast<float4 *>(x) = *reinterpret_cast<const float4 *>(&s.x[k][row]);
        *reinterpret_cast<float4 *>(x + 4) =
            *reinterpret_cast<const float4 *>(&s.x[k][row + 4]);
        *reinterpret_cast<float4 *>(w) =
            *reinterpret_cast<const float4 *>(&s.w[k][column]);
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x[i], w[j], sum[i][j]);
    }
}

template <typename T>
__device__ void store(const gpu_conv_args &a, size_t pixel, int output, int outputs,
                      const float (&sum)[4], T *y)
{
    const T *residual = static_cast<const T *>(a.residual);
    for (int j = 0; j < 4; j++) {
        const size_t at = pixel * outputs + output + j;
        float v = sum[j];
        if (output + j >= outputs) break;
        if (a.bias) v += a.bias[output + j];
        if (residual) v += float(residual[at]);
        y[at] = T(a.act == GPU_RELU && v < 0.0F ? 0.0F : v);
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    conv_plain(gpu_conv_args a, int room, int outputs, size_t pixels, const T *x, T *y)
{
    __shared__ shared_tiles s;
    const loader<T> l = loader_of(a, x, room, outputs);
    const int row = threadIdx.x / 16 * 8, column = threadIdx.x % 16 * 4;
    float sum[8][4] = {};
    for (int tap = 0; tap < a.kernel * a.kernel; tap++)
        for (int channel = 0; channel < room; channel += DEPTH) {
            float xs[LANES], ws[4];
            l.load_x(tap, channel, xs);
            l.load_w(tap, channel, ws);
            __syncthreads();
            for (int k = 0; k < LANES; k++)
                s.x[l.x_slot * LANES + k][threadIdx.x / 2] = xs[k];
            for (int k = 0; k < 4; k++) s.w[l.w_slot * 4 + k][threadIdx.x / 4] = ws[k];
            __syncthreads();
            multiply(s, row, column, sum);
        }
    for (int i = 0; i < 8; i++) {
        const size_t pixel = blockIdx.x * (size_t)PIXELS + row + i;
        if (pixel < pixels)
            store(a, pixel, blockIdx.y * OUTPUTS + column, outputs, sum[i], y);
    }
}

extern "C" cudaError_t gpu_conv_plain(const gpu_conv_args *conv, const void *x, void *y,
                                      cudaStream_t stream)
{
    const int room = (int)gpu_room((size_t)conv->from.channels);
    const int outputs = (int)gpu_room((size_t)conv->channels);
    const size_t pixels = gpu_pixels(&conv->from);
    const dim3 grid((unsigned int)((pixels + PIXELS - 1) / PIXELS),
                    (unsigned int)((outputs + OUTPUTS - 1) / OUTPUTS));
    FOR_TYPE(conv->from.type, T,
             conv_plain<T><<<grid, THREADS, 0, stream>>>(*conv, room, outputs, pixels,
                                                         static_cast<const T *>(x),
                                                         static_cast<T *>(y)));
    return cudaGetLastError();
}
