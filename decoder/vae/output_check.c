#include "decoder/vae/output_check.h"

#include "decoder/vae/backend.h"
#include "decoder/vae/latents.h"

#include <stdio.h>
#include <stdlib.h>

static bool is_finite(const luna_weight *weight)
{
    float *values = NULL;
    size_t first;
    if (luna_backend_floats(weight, &values) != LUNA_OK) return true;
    const bool finite = luna_count_not_finite(values, weight->count, &first) == 0;
    free(values);
    return finite;
}

//  The first weight that is not finite, or NULL.
static const char *damaged(const luna_weights *weights)
{
    for (size_t i = 0; i < weights->count; i++)
        if (!is_finite(&weights->item[i])) return weights->item[i].name;
    return NULL;
}

static void explain(const luna_weights *weights, luna_vae_precision precision, char *out,
                    size_t room)
{
    const char *name = damaged(weights);
    if (name)
        snprintf(out, room,
                 "the model's tensor '%.80s' holds NaN or infinity; get the file again",
                 name);
    else if (precision == LUNA_VAE_PRECISION_FP32)
        snprintf(out, room,
                 "the latents are finite, but far from what this model takes; see "
                 "whether they are of another model");
    else
        snprintf(out, room, "%s is too narrow for this model; try a wider precision",
                 luna_vae_precision_name(precision));
}

luna_err luna_output_explain(const luna_weights *weights, luna_vae_precision precision)
{
    char why[256];
    explain(weights, precision, why, sizeof why);
    return luna_error(LUNA_OVERFLOW, "%s: %s", luna_error_text(), why);
}

luna_err luna_output_check(const luna_output *output, const luna_weights *weights,
                           luna_vae_precision precision)
{
    char why[256];
    size_t first = 0;
    const luna_vae_shape *shape = output->shape;
    const size_t area = shape->height * shape->width;
    const size_t bad =
        luna_count_not_finite(output->values, area * shape->channels, &first);
    if (bad == 0) return LUNA_OK;
    explain(weights, precision, why, sizeof why);
    return luna_error(LUNA_OVERFLOW,
                      "the decode of image %zu gave %zu values that are NaN or infinite, "
                      "the first at channel %zu, row %zu, column %zu: %s",
                      output->image, bad, first / area, first % area / shape->width,
                      first % shape->width, why);
}
