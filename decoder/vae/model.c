//  What a built model is in numbers, and its weights' way from the disk.

#include "decoder/vae/family.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PIECE_BYTES = 8 << 20 };  //  read between two calls of `loading`

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  //  Linux 5.14
#endif

static uint64_t count_parameters(const luna_weights *weights)
{
    uint64_t count = 0;
    for (size_t i = 0; i < weights->count; i++) count += weights->item[i].count;
    return count;
}

//  With what lies between the values that act: it is in the same pages.
static uint64_t file_bytes(const luna_weight *weight)
{
    uint64_t values = weight->count;
    if (weight->gap) values = values / weight->run * (weight->run + weight->gap);
    return values * luna_dtype_size(weight->dtype);
}

static uint64_t count_read_bytes(const luna_model *model)
{
    uint64_t bytes = luna_safetensors_header_bytes(model->file);
    for (size_t i = 0; i < model->weights.count; i++)
        bytes += file_bytes(&model->weights.item[i]);
    return bytes;
}

luna_vae_info luna_model_info(const luna_model *model)
{
    return (luna_vae_info){.family = model->family,
                           .variant = model->variant,
                           .latent_channels = model->latent_channels,
                           .packed_channels = model->packed_channels,
                           .latent_rank = model->latent_rank ? model->latent_rank : 4,
                           .spatial_factor = model->spatial_factor,
                           .output_channels = model->output_channels,
                           .parameter_count = count_parameters(&model->weights),
                           .file_bytes = luna_safetensors_bytes(model->file),
                           .read_bytes = count_read_bytes(model),
                           .latent_scale = model->latent_scale,
                           .latent_shift = model->latent_shift};
}

//  ---- reading -----------------------------------------------------------------------

//  For a kernel that does not know the advice.
static void touch(const volatile uint8_t *from, size_t len, size_t page)
{
    for (size_t at = 0; at < len; at += page) (void)from[at];
}

//  Fills the page table of the pages around; a disk that fails is an error here, where
//  touching them would be a SIGBUS.
static luna_err read_piece(const luna_model *model, const uint8_t *from, size_t len)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t lead = (uintptr_t)from % page;
    void *start = (void *)(uintptr_t)(from - lead);
    if (madvise(start, len + lead, MADV_POPULATE_READ) == 0) return LUNA_OK;
    if (errno != EINVAL)
        return luna_error_errno(LUNA_IO, "cannot read the weights in %s",
                                luna_safetensors_label(model->file));
    (void)madvise(start, len + lead, MADV_WILLNEED);
    touch(start, len + lead, page);
    return LUNA_OK;
}

static luna_err read_weight(const luna_model *model, const luna_weight *weight,
                            size_t *pending, bool (*loading)(void *), void *context)
{
    const uint8_t *from = weight->data;
    size_t left = (size_t)file_bytes(weight);
    while (left > 0) {
        const size_t room = PIECE_BYTES - *pending;
        const size_t len = left < room ? left : room;
        LUNA_TRY(read_piece(model, from, len));
        from += len;
        left -= len;
        *pending += len;
        if (*pending < PIECE_BYTES) continue;
        *pending = 0;
        if (!loading(context)) return LUNA_CANCELLED;
    }
    return LUNA_OK;
}

luna_err luna_model_read(const luna_model *model, bool (*loading)(void *context),
                         void *context)
{
    size_t pending = 0;
    luna_err err = LUNA_OK;
    for (size_t i = 0; i < model->weights.count && err == LUNA_OK; i++)
        err = read_weight(model, &model->weights.item[i], &pending, loading, context);
    if (err == LUNA_OK && !loading(context)) err = LUNA_CANCELLED;
    if (err != LUNA_CANCELLED) return err;
    return luna_error(err, "%s: given up while it was loaded",
                      luna_safetensors_label(model->file));
}
