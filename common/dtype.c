#include "common/dtype.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are little-endian");

typedef struct dtype_row {
    const char *name;
    const char *word;
    size_t bytes;
} dtype_row;

static const dtype_row rows[LUNA_DTYPE_OTHER + 1] = {
#define X(symbol, bytes, word) {#symbol, word, bytes},
    LUNA_DTYPE_TABLE(X)
#undef X
        {"other", "other", 0},
};

static const dtype_row *row_of(luna_dtype dtype)
{
    return &rows[(unsigned)dtype < LUNA_DTYPE_OTHER ? dtype : LUNA_DTYPE_OTHER];
}

const char *luna_dtype_name(luna_dtype dtype)
{
    return row_of(dtype)->name;
}

const char *luna_dtype_word(luna_dtype dtype)
{
    return row_of(dtype)->word;
}

static bool same(const char *name, const char *text, size_t len)
{
    return strlen(name) == len && memcmp(name, text, len) == 0;
}

luna_dtype luna_dtype_parse(const char *text, size_t len)
{
    for (unsigned i = 0; i < LUNA_DTYPE_OTHER; i++)
        if (same(rows[i].name, text, len) || same(rows[i].word, text, len))
            return (luna_dtype)i;
    return LUNA_DTYPE_OTHER;
}

size_t luna_dtype_size(luna_dtype dtype)
{
    return row_of(dtype)->bytes;
}

bool luna_dtype_is_float(luna_dtype dtype)
{
    return dtype == LUNA_DTYPE_F64 || dtype == LUNA_DTYPE_F32 ||
           dtype == LUNA_DTYPE_F16 || dtype == LUNA_DTYPE_BF16;
}

bool luna_dtype_is_float8(luna_dtype dtype)
{
    return dtype == LUNA_DTYPE_F8_E4M3 || dtype == LUNA_DTYPE_F8_E5M2;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

//  The half's 15 lower bits, moved up, are a float whose exponent is 112 too small;
//  a multiplication by 2^112 puts that right, subnormals included. Infinity and NaN
//  need the exponent 255 instead. No branch: many values are done at once.
float luna_half_to_float(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000U) << 16;
    const uint32_t rest = (uint32_t)(bits & 0x7fffU) << 13;
    const uint32_t finite = bits_of(float_of(rest) * 0x1p112F);
    const uint32_t special = 0U - ((bits & 0x7c00U) == 0x7c00U);
    return float_of(sign | finite | (special & 0x7f800000U));
}

//  Rounds the lowest `drop` bits away, to nearest even.
static uint32_t round_off(uint32_t bits, unsigned drop)
{
    const uint32_t odd = bits >> drop & 1U;
    return (bits + (1U << (drop - 1)) - 1 + odd) >> drop;
}

uint16_t luna_float_to_half(float value)
{
    const uint32_t bits = bits_of(value);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000U);
    const uint32_t rest = bits & 0x7fffffffU;
    if (rest > 0x7f800000U) return (uint16_t)(sign | 0x7e00U);
    if (rest >= 0x47800000U) return (uint16_t)(sign | 0x7c00U);
    //  Below 2^-14 the half is subnormal: adding 2^-1 aligns its last bit, 2^-24,
    //  with the float's, and the addition itself rounds.
    if (rest < 0x38800000U)
        return (uint16_t)(sign | (bits_of(float_of(rest) + 0.5F) - bits_of(0.5F)));
    return (uint16_t)(sign | round_off(rest - 0x38000000U, 13));
}

float luna_bfloat_to_float(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t luna_float_to_bfloat(float value)
{
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return (uint16_t)(bits >> 16 | 0x40U);
    return (uint16_t)round_off(bits, 16);
}

static void from_half(const uint8_t *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        out[i] = luna_half_to_float(bits);
    }
}

static void from_bfloat(const uint8_t *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        out[i] = luna_bfloat_to_float(bits);
    }
}

//  Sign, four bits of exponent, three of mantissa; the one largest magnitude is NaN.
//  Moved up, the lower bits are a float whose exponent is 120 too small.
static float e4m3_to_float(uint8_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x80U) << 24;
    const uint32_t rest = (uint32_t)(bits & 0x7fU) << 20;
    if ((bits & 0x7fU) == 0x7fU) return float_of(sign | 0x7fc00000U);
    return float_of(sign | bits_of(float_of(rest) * 0x1p120F));
}

static void from_e4m3(const uint8_t *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) out[i] = e4m3_to_float(data[i]);
}

//  The upper half of a binary16.
static void from_e5m2(const uint8_t *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = luna_half_to_float((uint16_t)(data[i] << 8));
}

static void from_double(const uint8_t *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, data + 8 * i, sizeof value);
        out[i] = (float)value;
    }
}

luna_err luna_dtype_to_float(luna_dtype dtype, const void *data, size_t count, float *out)
{
    if (!luna_dtype_is_float(dtype) && !luna_dtype_is_float8(dtype))
        return luna_error(LUNA_UNSUPPORTED, "%s values cannot be read as float",
                          luna_dtype_name(dtype));
    if (dtype == LUNA_DTYPE_F16) from_half(data, count, out);
    if (dtype == LUNA_DTYPE_BF16) from_bfloat(data, count, out);
    if (dtype == LUNA_DTYPE_F8_E4M3) from_e4m3(data, count, out);
    if (dtype == LUNA_DTYPE_F8_E5M2) from_e5m2(data, count, out);
    if (dtype == LUNA_DTYPE_F64) from_double(data, count, out);
    if (dtype == LUNA_DTYPE_F32 && count > 0) memcpy(out, data, count * sizeof *out);
    return LUNA_OK;
}
