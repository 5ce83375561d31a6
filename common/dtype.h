//  dtype.h - the number formats of tensors, and their values as float
//
//  Names and sizes are those of safetensors. Only the floating-point formats can be
//  read as values; the others are known so that a file that holds them can be checked
//  and listed. Data need not be aligned. Little-endian
//  hosts only (checked when this is compiled).

#ifndef LUNA_COMMON_DTYPE_H
#define LUNA_COMMON_DTYPE_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

//  X(symbol and safetensors name, bytes of one value, the word on Luna's wire)
#define LUNA_DTYPE_TABLE(X)      \
    X(F64, 8, "float64")         \
    X(F32, 4, "float32")         \
    X(F16, 2, "float16")         \
    X(BF16, 2, "bfloat16")       \
    X(I64, 8, "int64")           \
    X(I32, 4, "int32")           \
    X(I16, 2, "int16")           \
    X(I8, 1, "int8")             \
    X(U64, 8, "uint64")          \
    X(U32, 4, "uint32")          \
    X(U16, 2, "uint16")          \
    X(U8, 1, "uint8")            \
    X(BOOL, 1, "bool")           \
    X(F8_E4M3, 1, "float8_e4m3") \
    X(F8_E5M2, 1, "float8_e5m2")

typedef enum luna_dtype {
#define X(symbol, bytes, word) LUNA_DTYPE_##symbol,
    LUNA_DTYPE_TABLE(X)
#undef X
        LUNA_DTYPE_OTHER,  //  a name this build does not know; size unknown
} luna_dtype;

//  The safetensors name, "F16", and the wire's word, "float16"; "other" for
//  LUNA_DTYPE_OTHER and values outside the table. Static.
const char *luna_dtype_name(luna_dtype dtype);
const char *luna_dtype_word(luna_dtype dtype);

//  The dtype of a safetensors name or of a wire word of `len` bytes (no NUL needed);
//  LUNA_DTYPE_OTHER when it is neither.
luna_dtype luna_dtype_parse(const char *text, size_t len);

//  Bytes of one value; 0 for LUNA_DTYPE_OTHER.
size_t luna_dtype_size(luna_dtype dtype);

//  F64, F32, F16 and BF16: what latents may be.
bool luna_dtype_is_float(luna_dtype dtype);

//  F8_E4M3 (the variant without infinity, 448 at most) and F8_E5M2: with those above what
//  weights may be.
bool luna_dtype_is_float8(luna_dtype dtype);

//  Reads `count` values at `data` (any alignment) as float, exactly but for F64, which is
//  rounded to nearest even. LUNA_UNSUPPORTED, with `out`
//  unchanged, for a dtype that is not floating point.
LUNA_MUST_USE luna_err luna_dtype_to_float(luna_dtype dtype, const void *data,
                                           size_t count, float *out);

//  IEEE 754 binary16 and bfloat16. The conversions from float round to nearest
//  even; what is too large becomes infinity, NaN stays NaN.
float luna_half_to_float(uint16_t bits);
uint16_t luna_float_to_half(float value);
float luna_bfloat_to_float(uint16_t bits);
uint16_t luna_float_to_bfloat(float value);

#endif
