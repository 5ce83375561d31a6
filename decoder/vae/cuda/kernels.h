//  kernels.h - the CUDA kernels, as C functions
//
//  Values on the device are [pixels][room] of one image: channels lie next to each other,
//  filled up with zeros to a multiple of 8 (gpu_room), so that a thread moves 8 of them
//  at a time. Every function starts its kernels on `stream` and returns the launch's
//  error; nothing is waited for. Sums are taken in an order that depends on sizes only:
//  the same input gives the same bits.

#ifndef LUNA_DECODER_VAE_CUDA_KERNELS_H
#define LUNA_DECODER_VAE_CUDA_KERNELS_H

#include <cuda_runtime.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gpu_type { GPU_FP16, GPU_BF16, GPU_FP32 } gpu_type;

//  Applied to a value before it is stored.
typedef enum gpu_act {
    GPU_LINEAR,
    GPU_RELU,
    GPU_SILU,
    GPU_TANH  //  of gpu_apply only: offset * tanh(scale * x), a soft clamp
} gpu_act;

static inline size_t gpu_size(gpu_type type)
{
    return type == GPU_FP32 ? 4 : 2;
}

static inline size_t gpu_room(size_t channels)
{
    return (channels + 7) / 8 * 8;
}

//  One value's size.
typedef struct gpu_extent {
    gpu_type type;
    int channels;
    int height;
    int width;
} gpu_extent;

static inline size_t gpu_pixels(const gpu_extent *e)
{
    return (size_t)e->height * (size_t)e->width;
}

static inline size_t gpu_bytes(const gpu_extent *e)
{
    return gpu_pixels(e) * gpu_room((size_t)e->channels) * gpu_size(e->type);
}

//  y = act(scale * x + offset), one pair a channel. Makes a norm's second half, an affine
//  map and the activations by themselves.
typedef struct gpu_pair {
    float scale;
    float offset;
} gpu_pair;

//  ---- layout.cu -------------------------------------------------------------------

//  Planar float [channels, height, width] to a value, and back.
cudaError_t gpu_from_planes(const gpu_extent *to, const float *planes, void *y,
                            cudaStream_t stream);
cudaError_t gpu_to_planes(const gpu_extent *from, const void *x, float *planes,
                          cudaStream_t stream);
//  Nearest 2 x 2 and UNPACK; `to` is the result's size.
cudaError_t gpu_upsample(const gpu_extent *to, const void *x, void *y,
                         cudaStream_t stream);
cudaError_t gpu_unpack(const gpu_extent *to, const void *x, void *y, cudaStream_t stream);

//  ---- pointwise.cu ----------------------------------------------------------------

//  pairs: [room], NULL for 1 and 0. y may be x.
cudaError_t gpu_apply(const gpu_extent *e, const gpu_pair *pairs, gpu_act act,
                      const void *x, void *y, cudaStream_t stream);
//  y = act(x + z + bias), LINEAR or RELU; z and bias may be NULL, y may be x or z.
cudaError_t gpu_add(const gpu_extent *e, const void *x, const void *z, const float *bias,
                    gpu_act act, void *y, cudaStream_t stream);
//  *largest = max(*largest, |x|) over all values, NaN and infinity counted as infinite.
cudaError_t gpu_largest(const gpu_extent *e, const void *x, float *largest,
                        cudaStream_t stream);
//  Numbers in (-1, 1) of about the spread that activations have, for timing.
cudaError_t gpu_fill(gpu_type type, void *x, size_t count, cudaStream_t stream);

//  ---- norm.cu, norm_parts.cu ------------------------------------------------------

//  Mean and sum of squared distances from it.
typedef struct gpu_moments {
    float mean;
    float squares;
} gpu_moments;

//  Statistics by squares of GPU_PART_SIDE pixels a side and GPU_PART_CHANNELS channels,
//  of a value of this size or, folded, of each of the four values that make one twice as
//  large: [channels / GPU_PART_CHANNELS][square][fourth].
enum { GPU_PART_SIDE = 16, GPU_PART_CHANNELS = 4 };
typedef struct gpu_parts {
    int height;
    int width;
    bool folded;
} gpu_parts;

static inline size_t gpu_part_count(const gpu_parts *parts)
{
    const size_t rows = ((size_t)parts->height + GPU_PART_SIDE - 1) / GPU_PART_SIDE;
    const size_t columns = ((size_t)parts->width + GPU_PART_SIDE - 1) / GPU_PART_SIDE;
    return rows * columns * (parts->folded ? 4 : 1);
}

typedef struct gpu_norm {
    gpu_extent from;
    int groups;
    float epsilon;
    const float *weight;   //  [channels]
    const float *bias;     //  [channels]
    const float *pending;  //  [channels] to add to x first; NULL: nothing
} gpu_norm;

//  Bytes of `scratch`.
size_t gpu_norm_scratch(const gpu_norm *norm);
//  Group norm's statistics, as the pairs that gpu_apply takes: pairs[room].
cudaError_t gpu_norm_pairs(const gpu_norm *norm, const void *x, void *scratch,
                           gpu_pair *pairs, cudaStream_t stream);
//  The same from statistics that are there: moments[channels / 4][gpu_part_count], of
//  groups of a multiple of 4 channels; nothing pending.
cudaError_t gpu_norm_pairs_of_parts(const gpu_norm *norm, const gpu_parts *parts,
                                    const gpu_moments *moments, gpu_pair *pairs,
                                    cudaStream_t stream);
//  y = act(x / max(|x|, epsilon) * sqrt(channels) * weight), |x| over a pixel's channels;
//  LINEAR, RELU or SILU.
cudaError_t gpu_rms_norm(const gpu_extent *e, float epsilon, const float *weight,
                         gpu_act act, const void *x, void *y, cudaStream_t stream);

//  ---- softmax.cu ------------------------------------------------------------------

//  Rows of `count` scores to weights that sum to 1: FP16 to FP16, FP32 to BF16 or FP32.
//  Rows start every gpu_room(count) values. `to` may be `from` when the types are one.
cudaError_t gpu_softmax(gpu_type from_type, const void *from, gpu_type to_type, void *to,
                        size_t rows, size_t count, cudaStream_t stream);

//  ---- attention_wgmma.cu ----------------------------------------------------------

//  Attention of one head without a mask, for some of its rows: y = softmax(scale q k^T)
//  v. FP16 and BF16, up to 512 channels (fewer take as long), on cards of compute
//  capability 9.0.
enum { GPU_ATTENTION_CHANNELS = 512, GPU_ATTENTION_ROWS = 256 };
typedef struct gpu_attention_args {
    gpu_type type;
    int channels;
    size_t tokens;
    size_t first, rows;     //  that are made
    float scale;            //  positive
    const void *q, *k, *v;  //  [tokens][room]
    void *y;                //  [tokens][room]
    void *scratch;          //  gpu_attention_bytes
} gpu_attention_args;

//  Rows that keep so many multiprocessors busy once over.
static inline size_t gpu_attention_round(int multiprocessors)
{
    const size_t blocks = (size_t)multiprocessors / 4;
    return (blocks ? blocks : 1) * GPU_ATTENTION_ROWS;
}

//  For so many rows; a multiple of GPU_ATTENTION_ROWS leaves no room unused.
size_t gpu_attention_bytes(size_t tokens, size_t rows);
//  The same bits whatever the rows are cut into.
cudaError_t gpu_attention_wgmma(const gpu_attention_args *args, int multiprocessors,
                                cudaStream_t stream);

//  ---- conv_plain.cu, conv_last.cu -------------------------------------------------

//  A convolution of stride 1 with zeros around; kernel 1 or 3. weight: [room of the
//  result][kernel][kernel][room of from], bias: [room] or NULL.
typedef struct gpu_conv_args {
    gpu_extent from;
    int channels;  //  of the result
    int kernel;
    const void *weight;
    const float *bias;
    const void *residual;  //  added; NULL: nothing
    gpu_act act;           //  LINEAR or RELU
} gpu_conv_args;

//  On the ordinary cores, sums in fp32: the fp32 path, and where cuDNN has no plan.
cudaError_t gpu_conv_plain(const gpu_conv_args *conv, const void *x, void *y,
                           cudaStream_t stream);

//  The last convolution: act(scale * x + offset), then 3 x 3 to at most 3 channels, to
//  planar float. FP16 and BF16. fragments: from gpu_conv_last_pack.
enum { GPU_LAST_CHANNELS = 3 };
typedef struct gpu_last_args {
    gpu_extent from;
    int channels;
    const void *fragments;
    const float *bias;      //  [channels] or NULL
    const gpu_pair *pairs;  //  [room]; NULL: 1 and 0
    gpu_act act;
} gpu_last_args;

size_t gpu_conv_last_bytes(int from_channels);
//  From the file's [out, in, 3, 3] float, in host memory, to the order in which the
//  tensor cores' lanes read them.
void gpu_conv_last_pack(gpu_type type, const float *weight, int channels,
                        int from_channels, void *fragments);
//  `multiprocessors` of the card change how the work is cut, no bit of the result.
cudaError_t gpu_conv_last(const gpu_last_args *last, const void *x, float *planes,
                          int multiprocessors, cudaStream_t stream);

//  ---- conv_wgmma.cu, conv_mma.cu, conv_fused.c --------------------------------------

//  A 3 x 3 convolution together with the group norm and SiLU before it, another value's
//  1 x 1 convolution added to it, and the statistics that the norm after it needs. FP16
//  and BF16; channels come in 64s, the result's in 128s.
enum {
    GPU_FUSED_FROM = 64,
    GPU_FUSED_TO = 128,
    GPU_FUSED_TO_MMA = 64  //  in a tile of conv_mma.cu; half a block of weights
};
typedef struct gpu_fused_args {
    gpu_extent from;
    int channels;  //  of the result
    bool folded;   //  x is enlarged to nearest 2 x 2 first
    const gpu_pair
        *pairs;            //  x becomes silu(scale * x + offset) first; NULL: it does not
    const void *weight;    //  gpu_fused_pack
    const float *bias;     //  [channels]
    const void *residual;  //  added; NULL: nothing
    const void *beside;    //  its 1 x 1 convolution is added; NULL: nothing. Not folded.
    int beside_channels;
    gpu_moments *parts;  //  [channels / 4][gpu_part_count]; NULL: no statistics
} gpu_fused_args;

//  Weights of a fused convolution, [out][taps][in] and [out][beside].
typedef struct gpu_fused_weights {
    int from, beside, to;  //  channels
    bool folded;
    const float *weight;    //  [to][from][3][3]
    const float *shortcut;  //  [to][beside]
} gpu_fused_weights;

//  Nearest 2 x 2 and then 3 x 3 is a transposed convolution of 4 x 4 with stride 2: a
//  pixel reaches a result through those of the three taps that meet one of its copies.
//  That convolution's weight at (row, column), of the nine of the 3 x 3.
float gpu_folded_weight(const float *taps, size_t row, size_t column);
//  The same by results: each of the four that a pixel becomes, row by row, meets every
//  second one of the 4 x 4, from the far side on.
float gpu_folded_tap(const float *taps, size_t corner, size_t number);
size_t gpu_fused_weight_bytes(const gpu_fused_weights *weights);
//  In host memory, to the blocks that a tile reads one after the other.
void gpu_fused_pack(gpu_type type, const gpu_fused_weights *weights, void *packed);
//  On cards of compute capability 9.0.
cudaError_t gpu_conv_wgmma(const gpu_fused_args *args, const void *x, void *y,
                           int multiprocessors, cudaStream_t stream);
//  On cards of compute capability 8.0 and up. half_sums: of FP16, each 32 products are
//  summed up in FP16 and these sums in FP32, which cards for games do in half the time.
cudaError_t gpu_conv_mma(const gpu_fused_args *args, const void *x, void *y,
                         bool half_sums, cudaStream_t stream);

//  ---- conv_narrow.cu, conv_narrow.c ---------------------------------------------------

//  A 3 x 3 convolution from 64 channels to 64 with what a tiny decoder has after it. FP16
//  and BF16, on cards of compute capability 9.0; x, y and the residual at multiples of 16
//  bytes.
enum { GPU_NARROW_CHANNELS = 64 };
typedef struct gpu_narrow_args {
    gpu_extent from;
    bool folded;           //  x is enlarged to nearest 2 x 2 first; no residual then
    const void *weight;    //  gpu_narrow_pack
    const float *bias;     //  [64]; NULL: nothing
    const void *residual;  //  added; NULL: nothing
    bool relu;             //  last
} gpu_narrow_args;

size_t gpu_narrow_weight_bytes(bool folded);
//  From the file's [64][64][3][3] float, in host memory.
void gpu_narrow_pack(gpu_type type, const float *weight, bool folded, void *packed);
cudaError_t gpu_conv_narrow(const gpu_narrow_args *args, const void *x, void *y,
                            int multiprocessors, cudaStream_t stream);

//  Floats to 16-bit values, in place and in host memory.
void gpu_narrow(gpu_type type, float *values, size_t count);

//  ---- pixels.cu -------------------------------------------------------------------

//  Decoder output to the caller's form, by the steps of decoder/vae/pixels.c.
typedef struct gpu_pixel_args {
    int channels;
    size_t pixels;
    bool unit;         //  nominally [0, 1], not [-1, 1]
    bool raw;          //  left as it is
    bool round;        //  bytes to nearest, not cut off
    bool interleaved;  //  [pixel][channel], not planar
    bool bytes;        //  uint8, interleaved; else float
} gpu_pixel_args;

//  *bad is set to 1 when a value is NaN or infinite, else left alone. `to` may be
//  `planes` when the output is planar float.
cudaError_t gpu_pixels_convert(const gpu_pixel_args *args, const float *planes, void *to,
                               int *bad, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
