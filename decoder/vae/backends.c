#include "decoder/vae/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  This file is the only place that knows which backends there are; the first of a device
//  is taken.
static const luna_backend *const backends[] = {
#if LUNA_VAE_CPU
    &luna_backend_cpu,
#endif
    &luna_backend_reference,
};

//  In a build without it the plain C backend is what "cpu" means.
static const luna_backend *cpu_backend(void)
{
    return backends[0];
}

static luna_err parse_cuda(const char *device, int *index)
{
    char rest = '\0';
    if (sscanf(device, "cuda:%3d%c", index, &rest) == 1 && *index >= 0) return LUNA_OK;
    return luna_error(LUNA_USAGE, "the device '%.40s' is not one: auto, cpu or cuda:N",
                      device);
}

luna_err luna_backend_find(const char *device, const luna_backend **out, int *index)
{
    *index = 0;
    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0) {
        *out = cpu_backend();
        return LUNA_OK;
    }
    if (strcmp(device, luna_backend_reference.device) == 0) {
        *out = &luna_backend_reference;
        return LUNA_OK;
    }
    LUNA_TRY(parse_cuda(device, index));
    return luna_error(
        LUNA_UNAVAILABLE,
        "the device '%s' is not there: this build has no CUDA backend; use cpu", device);
}

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
