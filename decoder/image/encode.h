//  encode.h - pixels to the bytes of an image file
//
//  PNG by our own writer on libdeflate, JPEG by libjpeg-turbo, the others by libvips:
//  measured beside libvips for all of them, which took twice the time for a PNG and a
//  third more for a JPEG (make bench-encode). AVIF and JPEG XL are there where the
//  installed libvips writes them, which is found out when one is first asked for.
//
//  The encoder writes the picture, no profile and no text. Metadata is added to the bytes
//  afterwards (embed.h): libvips 8.14 stores PNG text as zTXt, which ComfyUI does not
//  read, damages text that is not ASCII, and loses what exceeds 64 KiB without an error.
//  Send every file through luna_image_embed, one without texts too: it writes JPEG's
//  header, and WebP chunks that old readers understand.
//
//  One image is encoded by one thread; a pool encodes as many images at a time as
//  it has threads. Pixels are borrowed and never copied as a whole.

#ifndef LUNA_IMAGE_ENCODE_H
#define LUNA_IMAGE_ENCODE_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LUNA_PNG_COMPRESSION_MAX     9
#define LUNA_PNG_COMPRESSION_DEFAULT 4
#define LUNA_LOSSY_QUALITY_MIN       1
#define LUNA_LOSSY_QUALITY_MAX       100
#define LUNA_LOSSY_QUALITY_DEFAULT   90
#define LUNA_IMAGE_MAX_SIDE_PX       1000000

//  X(symbol, word on the wire, extension of the file)
#define LUNA_FORMAT_TABLE(X) \
    X(PNG, "png", "png")     \
    X(WEBP, "webp", "webp")  \
    X(JPEG, "jpeg", "jpg")   \
    X(AVIF, "avif", "avif")  \
    X(JXL, "jxl", "jxl")

typedef enum luna_format {
#define X(symbol, word, extension) LUNA_FORMAT_##symbol,
    LUNA_FORMAT_TABLE(X)
#undef X
        LUNA_FORMAT_COUNT
} luna_format;

//  The format named by the `len` bytes at `word`, which need no NUL; "jpg" is taken
//  for "jpeg". LUNA_BAD_REQUEST for any other word.
LUNA_MUST_USE luna_err luna_format_parse(const char *word, size_t len, luna_format *out);

//  Word and extension ("jpeg", "jpg"), without a dot. Static; "png" for a value
//  outside the table.
const char *luna_format_word(luna_format format);
const char *luna_format_extension(luna_format format);

//  sRGB pixels, rows from the top without padding, channels interleaved.
typedef struct luna_pixels {
    const uint8_t *data;  //  height * width * channels * sample_bytes, borrowed
    size_t width;         //  1 to LUNA_IMAGE_MAX_SIDE_PX
    size_t height;
    size_t channels;      //  3: RGB, 4: RGBA with unassociated alpha
    size_t sample_bytes;  //  1, or 2 for 16 bits, big-endian: PNG only
} luna_pixels;

typedef struct luna_encode_options {
    luna_format format;
    int png_compression;  //  PNG: 0 (stored) to 9 (smallest)
    int lossy_quality;    //  JPEG, WebP, AVIF, JPEG XL: 1 to 100
    bool lossless;  //  WebP, JPEG XL: every pixel is kept, lossy_quality does not count
} luna_encode_options;

//  PNG, compression 4, quality 90.
luna_encode_options luna_encode_options_default(void);

//  Whether a file of the format takes a picture of this size: LUNA_BAD_REQUEST with the
//  format's limit (WebP 16383 pixels a side, AVIF 16384, JPEG 65500) and what to do.
LUNA_MUST_USE luna_err luna_image_fits(luna_format format, size_t width, size_t height);

//  Whether this machine writes the format: LUNA_UNSUPPORTED with what is missing. The
//  first question about AVIF encodes a small picture, a few milliseconds. Thread-safe
//  between luna_image_start and luna_image_stop.
LUNA_MUST_USE luna_err luna_image_can(luna_format format);

//  Prepares libvips: one thread an image, no operation cache. Call once, before the
//  threads that encode start; LUNA_INTERNAL when libvips does not start.
LUNA_MUST_USE luna_err luna_image_start(void);

//  Frees what libvips holds for the calling thread: the last call of a thread that
//  encoded, before it ends.
void luna_image_thread_end(void);

//  Ends libvips. Call once, after every encoding thread has ended.
void luna_image_stop(void);

//  Encodes one image. *out is malloc'd and the caller's to free; it and *out_len
//  are set on success only. JPEG has no alpha: an RGBA picture is laid on white.
//  JPEG and AVIF keep colour at half the resolution below quality 95, as Pillow does, and
//  at the full one from there on. AVIF has some loss at every quality.
//
//  LUNA_BAD_REQUEST: sides, channels, samples, compression or quality out of range.
//  LUNA_UNSUPPORTED as luna_image_can says. LUNA_NO_MEMORY, or LUNA_INTERNAL with
//  libvips' own words. Thread-safe between luna_image_start and luna_image_stop. Cost at
//  the defaults for a megapixel: README, "Measured".
LUNA_MUST_USE luna_err luna_image_encode(const luna_pixels *pixels,
                                         const luna_encode_options *options,
                                         uint8_t **out, size_t *out_len);

#endif
