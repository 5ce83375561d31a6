//  What backends share.

#include "decoder/vae/backend.h"

#include <stdlib.h>

luna_err luna_backend_over_limit(const luna_plan_request *request, size_t bytes)
{
    const size_t limit = request->memory_limit_bytes;
    const luna_shape *picture = &request->shapes[request->graph->count - 1];
    const size_t all = bytes > SIZE_MAX - request->staging_bytes
                           ? SIZE_MAX
                           : bytes + request->staging_bytes;
    if (limit == 0 || all <= limit) return LUNA_OK;
    return luna_error(
        LUNA_NO_MEMORY,
        "a picture of %zu x %zu needs %zu bytes of memory; the limit is %zu",
        picture->width, picture->height, all, limit);
}

static luna_err read_runs(const luna_weight *weight, float *out)
{
    const uint8_t *from = weight->data;
    const size_t run = weight->gap ? weight->run : weight->count;
    const size_t step = (weight->run + weight->gap) * luna_dtype_size(weight->dtype);
    for (size_t i = 0; i < weight->count; i += run, from += step)
        LUNA_TRY(luna_dtype_to_float(weight->dtype, from, run, out + i));
    return LUNA_OK;
}

luna_err luna_backend_floats(const luna_weight *weight, float **out)
{
    size_t bytes;
    float *values = NULL;
    if (!__builtin_mul_overflow(weight->count, sizeof(float), &bytes))
        values = malloc(bytes ? bytes : 1);
    if (!values)
        return luna_error(LUNA_NO_MEMORY, "no memory for the weight '%s'", weight->name);
    const luna_err err = read_runs(weight, values);
    if (err != LUNA_OK) free(values);
    if (err == LUNA_OK) *out = values;
    return err;
}
