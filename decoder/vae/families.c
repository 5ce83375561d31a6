#include "decoder/vae/family.h"

static const luna_family *const families[] = {
    &luna_family_kl,
    &luna_family_taesd,
    &luna_family_wan,
};

const char *const luna_model_prefixes[LUNA_MODEL_PREFIXES] = {"", "first_stage_model.",
                                                              "vae."};

static luna_err unknown(const luna_safetensors *file)
{
    const luna_tensor *first = luna_safetensors_at(file, 0);
    return luna_error(
        LUNA_BAD_MODEL,
        "%s: not a VAE decoder Luna knows (%zu tensors, the first is '%.80s')",
        luna_safetensors_label(file), luna_safetensors_count(file),
        first ? first->name : "");
}

//  No decoder of pictures doubles its input more often.
enum { DOUBLINGS_MAX = 7 };

static luna_err settle_factor(luna_model *model)
{
    size_t doublings = 0;
    for (size_t i = 0; i < model->plain.count; i++)
        if (model->plain.node[i].op == LUNA_OP_UPSAMPLE) doublings++;
    if (doublings > DOUBLINGS_MAX)
        return luna_error(LUNA_BAD_MODEL,
                          "%s: the decoder doubles its input %zu times; Luna takes %d",
                          luna_safetensors_label(model->file), doublings, DOUBLINGS_MAX);
    model->spatial_factor = (size_t)1 << doublings;
    return LUNA_OK;
}

static luna_err settle_output(luna_model *model)
{
    LUNA_TRY(settle_factor(model));
    model->output_channels = model->plain.node[model->plain.count - 1].channels;
    if (model->output_channels == 3 || model->output_channels == 4) return LUNA_OK;
    return luna_error(LUNA_BAD_MODEL,
                      "%s: the decoder makes %zu channels; Luna takes 3 or 4",
                      luna_safetensors_label(model->file), model->output_channels);
}

luna_err luna_model_build(luna_model *model)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (!families[i]->fits(model->file)) continue;
        model->family = families[i]->name;
        LUNA_TRY(families[i]->build(model));
        return settle_output(model);
    }
    return unknown(model->file);
}
