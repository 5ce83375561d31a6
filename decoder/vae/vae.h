//  vae.h - the VAE engine: latents in, pixels out
//
//  An engine holds one model on one device. What the model is (family, widths,
//  packing) is read from the file's own keys and shapes. Images are decoded one
//  at a time, so the pixels of an image do not depend on its neighbours in the
//  batch or on how a caller cuts a batch up, and memory depends on the picture's
//  size only. The steps for a picture size (the plan) are made on first use and
//  kept for the sizes used last.
//
//      luna_vae_options options = luna_vae_options_default();
//      luna_vae *vae = NULL;
//      LUNA_TRY(luna_vae_open("taef2_decoder.safetensors", &options, &vae));
//      luna_vae_shape shape;
//      LUNA_TRY(luna_vae_output_shape(vae, &latents, &shape));
//      uint8_t *rgb = malloc(shape.channels * shape.height * shape.width);
//      luna_vae_target target = {.data = rgb, .format = LUNA_PIXELS_U8, ...};
//      LUNA_TRY(luna_vae_decode(vae, &latents, 0, 1, &target));
//      luna_vae_close(&vae);
//
//  Thread: an engine is used by one thread at a time, any thread; different
//  engines are independent. Functions that fail say why in luna_error_text().

#ifndef LUNA_DECODER_VAE_VAE_H
#define LUNA_DECODER_VAE_VAE_H

#include "common/dtype.h"
#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct luna_vae luna_vae;

typedef enum luna_vae_precision {
    LUNA_VAE_PRECISION_AUTO,  //  the device's best: fp32 on a CPU, fp16 on a GPU
    LUNA_VAE_PRECISION_FP32,
    LUNA_VAE_PRECISION_FP16,
    LUNA_VAE_PRECISION_BF16
} luna_vae_precision;

//  "auto", "fp32", "fp16", "bf16", and back; LUNA_USAGE for another word.
const char *luna_vae_precision_name(luna_vae_precision precision);
LUNA_MUST_USE luna_err luna_vae_precision_parse(const char *word,
                                                luna_vae_precision *out);

typedef struct luna_vae_options {
    //  "auto" (the first GPU where there is one, else the CPU), "cpu", "cuda:N",
    //  "cuda:GPU-..." (a UUID or its beginning), or "reference" (plain C).
    const char *device;
    luna_vae_precision precision;
    int threads;  //  CPU threads; 0: one for each processor
    //  For one decode, weights included; 0: the device's own. On a CPU, values that do
    //  not fit are kept in a temporary file (in TMPDIR, else /var/tmp), with the same
    //  pixels; without a limit, those that are over 1.5 GiB. A GPU's own limit is what is
    //  free when the engine is opened, less a reserve (memory_budget.h); it is looked at
    //  again when a picture does not fit.
    size_t memory_limit_bytes;
    //  The model sees (latent - shift) * scale. A scale of 0 means what ComfyUI's
    //  latents need: 1 and 0, but for the TAESD family, where it is taken from the
    //  file (vae_scale and vae_shift) or from the member that its name or a folder's
    //  names: taesd 0.18215, taesdxl 0.13025, taesd3 1.5305 shift 0.0609,
    //  taef1 0.3611 shift 0.1159; taef2 and taesana, known by their shape, 1 and 0.41407.
    float latent_scale;
    float latent_shift;
    //  Called by the decoding thread after every step of a decode (there are dozens), so
    //  that a watchdog can tell a slow decode from one that hangs. Must be quick; may be
    //  NULL.
    void (*step)(void *context);
    void *step_context;
    //  Not NULL: luna_vae_open reads the weights from the disk, so that no decode waits
    //  for them, and calls this by the opening thread after every few MiB; false gives
    //  the model up (LUNA_CANCELLED). NULL: a weight is read when a plan first needs it.
    bool (*loading)(void *context);
    void *loading_context;
    //  The engine is to try the device out, not to be fast: a GPU's own kernels do
    //  whatever they can do, also where the libraries' are faster, and of the libraries'
    //  plans the first that runs is taken.
    bool trial;
} luna_vae_options;

//  Device auto, precision auto, no limit, scale from the model.
luna_vae_options luna_vae_options_default(void);

//  What a model is. Strings are static or live as long as the engine.
typedef struct luna_vae_info {
    const char *family;   //  "kl", "wan", "taesd"
    const char *variant;  //  a few words for people: "TAESD with pooled blocks (TAEF2)"
    size_t latent_channels;  //  32
    size_t packed_channels;  //  128 when [N, 128, H/2, W/2] is taken too, else 0
    size_t latent_rank;      //  of ComfyUI's latents for it: 4, or 5 for [N, C, 1, H, W]
    size_t spatial_factor;   //  pixels a side for one latent (unpacked): 8
    size_t output_channels;  //  3, or 4 with alpha
    uint64_t parameter_count;  //  of the decoder; other tensors of the file not counted
    uint64_t file_bytes;
    uint64_t read_bytes;  //  of them: the header and the decoder's own tensors
    float latent_scale;   //  what is applied, see luna_vae_options
    float latent_shift;
    const char *device;     //  "cpu", "cuda:0", "reference"
    const char *backend;    //  "AVX-512"
    const char *precision;  //  "fp32"
} luna_vae_info;

//  Loads a model. The file is mapped and must not be truncated while it is open.
//  LUNA_NOT_FOUND, LUNA_IO: no such file, or it cannot be read.
//  LUNA_BAD_MODEL: damaged, or not a decoder Luna knows; the sentence names the key. Or
//  a TAESD decoder of which nothing says for which latents it is.
//  LUNA_UNSUPPORTED: this device has no such precision.
//  LUNA_UNAVAILABLE: no such device, or this build has no backend for it.
//  LUNA_CANCELLED: options->loading said so.
//  LUNA_NO_MEMORY.
//  The caller closes *out.
LUNA_MUST_USE luna_err luna_vae_open(const char *path, const luna_vae_options *options,
                                     luna_vae **out);

//  As luna_vae_open for a safetensors file image in memory, which must outlive the
//  engine. `label` stands for the path in error sentences.
LUNA_MUST_USE luna_err luna_vae_open_bytes(const void *data, size_t len,
                                           const char *label,
                                           const luna_vae_options *options,
                                           luna_vae **out);

//  What the model in a file is, from its header alone: no weight is read and no device
//  asked; `device`, `backend` and `precision` are NULL, the other strings static. Of the
//  options the scale and shift count. LUNA_NOT_FOUND, LUNA_IO, LUNA_BAD_MODEL,
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_vae_inspect(const char *path, const luna_vae_options *options,
                                        luna_vae_info *out);

//  Frees all and sets *vae to NULL; NULL is fine.
void luna_vae_close(luna_vae **vae);

//  The limit of a decode in force; 0: none.
size_t luna_vae_memory_limit(const luna_vae *vae);

const luna_vae_info *luna_vae_describe(const luna_vae *vae);

//  One batch as it came: [count, channels, height, width], contiguous.
typedef struct luna_vae_latents {
    const void *data;  //  borrowed, any alignment
    luna_dtype dtype;  //  F64, F32, F16 or BF16
    size_t count;
    size_t channels;  //  latent_channels, or packed_channels
    size_t height;    //  in latents
    size_t width;
} luna_vae_latents;

//  Fills `out` from a tensor's own shape: [C, H, W], [N, C, H, W], or
//  [N, C, 1, H, W] (one frame). LUNA_BAD_LATENT for other shapes, a size of 0, more
//  values than memory can hold, several frames, or a dtype that is not one of the four.
LUNA_MUST_USE luna_err luna_vae_latents_from(const void *data, luna_dtype dtype,
                                             const size_t *shape, size_t rank,
                                             luna_vae_latents *out);

typedef struct luna_vae_shape {
    size_t count;
    size_t channels;
    size_t height;  //  in pixels
    size_t width;
} luna_vae_shape;

//  The pictures these latents give; reads no latent values. LUNA_BAD_LATENT when the
//  channels do not fit the model (the sentence names both counts) or the picture is
//  too large to count its bytes.
LUNA_MUST_USE luna_err luna_vae_output_shape(const luna_vae *vae,
                                             const luna_vae_latents *latents,
                                             luna_vae_shape *out);

//  What a plan takes and does, for one image.
typedef struct luna_vae_cost {
    size_t peak_bytes;    //  weight_bytes + activations + scratch + staging
    size_t weight_bytes;  //  in the device's own layout
    uint64_t flop;        //  2 x multiply-adds, counted as direct convolutions
    size_t steps;         //  calls of luna_vae_options.step that a decode makes
} luna_vae_cost;

//  Makes (and keeps) the plan for pictures of this size, so that the first decode
//  does not pay for it, and tells its cost. LUNA_BAD_LATENT as output_shape;
//  LUNA_NO_MEMORY when it is over the limit (the sentence gives both numbers) or
//  cannot be allocated; LUNA_DEVICE. `out` may be NULL.
LUNA_MUST_USE luna_err luna_vae_prepare(luna_vae *vae, const luna_vae_latents *latents,
                                        luna_vae_cost *out);

typedef enum luna_pixels_format {
    LUNA_PIXELS_F32_PLANAR,  //  float [count, channels, height, width]
    LUNA_PIXELS_F32,         //  float [count, height, width, channels], ComfyUI's IMAGE
    LUNA_PIXELS_U8           //  uint8 [count, height, width, channels]
} luna_pixels_format;

typedef enum luna_pixels_rule {
    LUNA_PIXELS_TRUNCATE,  //  U8: as ComfyUI saves; F32: [0, 1] as ComfyUI's IMAGE
    LUNA_PIXELS_ROUND,  //  U8: to nearest, ties to even, as diffusers; F32: as TRUNCATE
    LUNA_PIXELS_RAW     //  F32 only: the decoder's own output, unclamped
} luna_pixels_rule;

//  Where pixels go and in what form.
typedef struct luna_vae_target {
    void *data;    //  the caller's; aligned for its element type
    size_t bytes;  //  room at data; see luna_pixels_bytes
    luna_pixels_format format;
    luna_pixels_rule rule;
} luna_vae_target;

//  Bytes that `count` images of `shape` take in `format`.
size_t luna_pixels_bytes(const luna_vae_shape *shape, size_t count,
                         luna_pixels_format format);

//  Decodes images first .. first + count - 1 of the batch into target->data, the
//  first at its start. Cost: seconds on a CPU.
//  LUNA_BAD_LATENT: channels, or values that are NaN or infinite (how many and where).
//  LUNA_OVERFLOW: the output is not finite although the latents are; the sentence says
//  which weight is damaged, or what to try.
//  LUNA_NO_MEMORY: over memory_limit_bytes, or none to be had, also when everything kept
//  was given back and the images were tried one at a time; the engine stays usable.
//  LUNA_DEVICE: the device failed; close the engine.
//  LUNA_USAGE: the range is outside the batch, the room too small, U8 with RAW.
//  After an error the images before the one that failed are complete in the target,
//  the rest of it is undefined.
LUNA_MUST_USE luna_err luna_vae_decode(luna_vae *vae, const luna_vae_latents *latents,
                                       size_t first, size_t count,
                                       const luna_vae_target *target);

//  Where the images of a decode go, one after the other and each to a place of its own.
//  A GPU computes the next one meanwhile: these two may take their time, or wait.
typedef struct luna_vae_outlet {
    luna_pixels_format format;
    luna_pixels_rule rule;
    //  Room for one picture, luna_pixels_bytes(shape, 1, format). An error ends the
    //  decode and is its result.
    luna_err (*place)(void *context, size_t image, void **room);
    //  Its pixels are there.
    void (*done)(void *context, size_t image);
    void *context;
} luna_vae_outlet;

//  As luna_vae_decode, and what `place` returns. After an error every image that `done`
//  was called for is complete; one that had a place and no `done` is not.
LUNA_MUST_USE luna_err luna_vae_decode_to(luna_vae *vae, const luna_vae_latents *latents,
                                          size_t first, size_t count,
                                          const luna_vae_outlet *outlet);

//  Gives plans and working memory back; the next decode makes them again.
void luna_vae_trim(luna_vae *vae);

#endif
