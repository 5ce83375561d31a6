//  taesd_member.h - which of the TAESD decoders a file is, where its tensors do not say
//
//  The members differ in their weights and in the latents they were made for. Each sees
//  (latent - shift) * scale, by which ComfyUI's latents become those of the model that
//  the member belongs to. Two and two have the same tensors, and the file's name decides:
//
//      taesd    4 channels  0.18215     taesdxl  4 channels   0.13025
//      taesd3  16 channels  1.5305, shift 0.0609
//      taef1   16 channels  0.3611, shift 0.1159

#ifndef LUNA_DECODER_VAE_TAESD_MEMBER_H
#define LUNA_DECODER_VAE_TAESD_MEMBER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct luna_taesd_member {
    const char *name;
    size_t channels;
    float scale;
    float shift;
} luna_taesd_member;

//  The member of so many channels that the path names: in the file's name, else in the
//  nearest folder's that names one, as in taesdxl/diffusion_pytorch_model.safetensors.
//  NULL when there is none.
const luna_taesd_member *luna_taesd_member_of(const char *path, size_t channels);

//  The members of so many channels as "taesd (scale 0.18215, shift 0) or ..." in `out`;
//  empty when there are none.
void luna_taesd_member_choices(size_t channels, char *out, size_t room);

#endif
