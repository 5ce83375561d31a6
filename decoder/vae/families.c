#include "decoder/vae/family.h"

static const luna_family *const families[] = {
    &luna_family_taesd,
};

static luna_err unknown(const luna_safetensors *file)
{
    const luna_tensor *first = luna_safetensors_at(file, 0);
    return luna_error(
        LUNA_BAD_MODEL,
        "%s: not a VAE decoder Luna knows (%zu tensors, the first is '%.80s')",
        luna_safetensors_label(file), luna_safetensors_count(file),
        first ? first->name : "");
}

luna_err luna_model_build(luna_model *model)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (!families[i]->fits(model->file)) continue;
        model->family = families[i]->name;
        return families[i]->build(model);
    }
    return unknown(model->file);
}
