#include "decoder/image/bytes.h"
#include "decoder/image/encoders.h"
#include "decoder/image/png_filter.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_BYTES 12          //  around a chunk's data
#define IDAT_MAX    (1u << 30)  //  bytes; a chunk takes 2^31 - 1

//  libdeflate's levels behind PNG's. Each gives smaller files than zlib's of PNG's number
//  and takes less time; only drawings take more at 7 and 9 (make bench-encode).
static const int levels[LUNA_PNG_COMPRESSION_MAX + 1] = {0, 1, 3, 5, 6, 7, 7, 8, 9, 10};

//  The zlib stream of the filtered rows.
static luna_err compress_rows(const uint8_t *rows, size_t len, int level, luna_bytes *out)
{
    struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(levels[level]);
    const size_t most = libdeflate_zlib_compress_bound(compressor, len);
    out->data = compressor ? malloc(most) : NULL;
    if (out->data)
        out->len = libdeflate_zlib_compress(compressor, rows, len, out->data, most);
    libdeflate_free_compressor(compressor);
    if (out->len > 0) return LUNA_OK;
    return luna_error(LUNA_NO_MEMORY, "no memory to compress a picture of %zu bytes",
                      len);
}

static void put_chunk(luna_bytes *out, const char *type, const void *data, size_t len)
{
    luna_bytes_be32(out, (uint32_t)len);
    luna_bytes_put(out, type, 4);
    luna_bytes_put(out, data, len);
    const uint32_t crc = libdeflate_crc32(libdeflate_crc32(0, type, 4), data, len);
    luna_bytes_be32(out, crc);
}

static void put_header(luna_bytes *out, const luna_pixels *p)
{
    luna_bytes header = {0};
    const uint8_t rest[] = {(uint8_t)(8 * p->sample_bytes), p->channels == 4 ? 6 : 2, 0,
                            0, 0};
    luna_bytes_be32(&header, (uint32_t)p->width);
    luna_bytes_be32(&header, (uint32_t)p->height);
    luna_bytes_put(&header, rest, sizeof rest);
    if (header.failed)
        out->failed = true;
    else
        put_chunk(out, "IHDR", header.data, header.len);
    luna_bytes_free(&header);
}

static luna_err write_file(const luna_pixels *p, const luna_bytes *stream,
                           luna_bytes *out)
{
    luna_bytes_reserve(out, stream->len + FRAME_BYTES * (stream->len / IDAT_MAX + 8));
    luna_bytes_put(out, "\x89PNG\r\n\x1a\n", 8);
    put_header(out, p);
    for (size_t at = 0; at < stream->len; at += IDAT_MAX) {
        const size_t left = stream->len - at;
        put_chunk(out, "IDAT", stream->data + at, left < IDAT_MAX ? left : IDAT_MAX);
    }
    put_chunk(out, "IEND", "", 0);
    return luna_bytes_end(out, "a PNG file");
}

static luna_err filter_and_compress(const luna_pixels *p, int level, luna_bytes *stream)
{
    const size_t len = luna_png_filtered_bytes(p);
    uint8_t *rows = malloc(len);
    if (!rows) return luna_error(LUNA_NO_MEMORY, "no memory for %zu bytes of rows", len);
    luna_err err =
        luna_png_filter(p, level == 0 ? LUNA_PNG_UNFILTERED : LUNA_PNG_BY_ROW, rows);
    if (err == LUNA_OK) err = compress_rows(rows, len, level, stream);
    free(rows);
    return err;
}

luna_err luna_encode_png(const luna_pixels *pixels, const luna_encode_options *options,
                         uint8_t **out, size_t *out_len)
{
    luna_bytes stream = {0}, file = {0};
    const int level = options->png_compression;
    if (level < 0 || level > LUNA_PNG_COMPRESSION_MAX)
        return luna_error(LUNA_BAD_REQUEST, "PNG compression is 0 to %d, not %d",
                          LUNA_PNG_COMPRESSION_MAX, level);
    luna_err err = filter_and_compress(pixels, level, &stream);
    if (err == LUNA_OK) err = write_file(pixels, &stream, &file);
    free(stream.data);
    if (err != LUNA_OK) {
        luna_bytes_free(&file);
        return err;
    }
    *out = file.data;
    *out_len = file.len;
    return LUNA_OK;
}
