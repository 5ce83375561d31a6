#include "decoder/vae/backend.h"
#include "decoder/vae/plugin.h"

#include <stdio.h>
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

//  The plugin's backend, when it has a card of that number.
static luna_err find_cuda(int index, const luna_backend **out)
{
    const luna_backend *cuda = NULL;
    LUNA_TRY(luna_plugin_cuda(&cuda));
    LUNA_TRY(cuda->probe(index));
    *out = cuda;
    return LUNA_OK;
}

luna_err luna_backend_find(const char *device, const luna_backend **out, int *index)
{
    *index = 0;
    if (strcmp(device, "cpu") == 0 ||
        (strcmp(device, "auto") == 0 && find_cuda(0, out) != LUNA_OK)) {
        *out = cpu_backend();
        return LUNA_OK;
    }
    if (strcmp(device, "auto") == 0) return LUNA_OK;
    if (strcmp(device, luna_backend_reference.device) == 0) {
        *out = &luna_backend_reference;
        return LUNA_OK;
    }
    LUNA_TRY(parse_cuda(device, index));
    const luna_err err = find_cuda(*index, out);
    if (err == LUNA_OK) return LUNA_OK;
    return luna_error(err, "the device '%s' is not there: %s", device, luna_error_text());
}

void luna_backend_name(const luna_backend *backend, int index,
                       char out[LUNA_DEVICE_BYTES])
{
    if (backend->probe)
        snprintf(out, LUNA_DEVICE_BYTES, "%s:%d", backend->device, index);
    else
        snprintf(out, LUNA_DEVICE_BYTES, "%s", backend->device);
}
