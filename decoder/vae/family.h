//  family.h - the kinds of decoder Luna knows, and what a model of one is
//
//  A family recognises its own files by keys and shapes and builds the graph. Each is
//  one file with one entry in families.c.

#ifndef LUNA_DECODER_VAE_FAMILY_H
#define LUNA_DECODER_VAE_FAMILY_H

#include "common/safetensors.h"
#include "decoder/vae/graph.h"
#include "decoder/vae/pixels.h"
#include "decoder/vae/vae.h"

typedef struct luna_model {
    const luna_safetensors *file;  //  borrowed
    const char *family;            //  static
    const char *variant;           //  static, for people
    size_t latent_channels;
    size_t packed_channels;  //  0 when packed input is not taken
    size_t latent_rank;      //  see luna_vae_info; 0: 4
    size_t spatial_factor;  //  this and the next are the graph's: not for a family to set
    size_t output_channels;
    float latent_scale;  //  the model sees (latent - shift) * scale; in: 0 for "from the
                         //  file"
    float latent_shift;
    luna_pixels_range range;  //  of the decoder's own output
    luna_weights weights;
    luna_graph plain;   //  takes latent_channels
    luna_graph packed;  //  takes packed_channels; empty when there are none
} luna_model;

typedef struct luna_family {
    const char *name;
    //  Whether the file looks like one of this family: keys only, cheap.
    bool (*fits)(const luna_safetensors *file);
    //  Fills the rest of *model. LUNA_BAD_MODEL names the key that is wrong.
    luna_err (*build)(luna_model *model);
} luna_family;

extern const luna_family luna_family_kl;
extern const luna_family luna_family_taesd;
extern const luna_family luna_family_wan;

//  What a whole checkpoint puts before the names of its VAE; the first is "".
enum { LUNA_MODEL_PREFIXES = 3 };
extern const char *const luna_model_prefixes[LUNA_MODEL_PREFIXES];

//  Finds the family of model->file and builds it. LUNA_BAD_MODEL when none fits, or when
//  the decoder makes neither RGB nor RGBA.
LUNA_MUST_USE luna_err luna_model_build(luna_model *model);

//  All that does not depend on a device.
luna_vae_info luna_model_info(const luna_model *model);

//  Reads the weights from the disk into memory, where the map then finds them; see
//  luna_vae_options.loading. LUNA_CANCELLED; LUNA_IO when they cannot be read.
LUNA_MUST_USE luna_err luna_model_read(const luna_model *model,
                                       bool (*loading)(void *context), void *context);

#endif
