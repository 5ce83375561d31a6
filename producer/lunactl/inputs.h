//  inputs.h - the files a submission is made of

#ifndef LUNA_LUNACTL_INPUTS_H
#define LUNA_LUNACTL_INPUTS_H

#include "common/latent_file.h"
#include "producer/lunactl/lunactl.h"

typedef struct luna_ctl_inputs {
    luna_latent_file latents[LUNA_INPUTS_MAX];
    size_t count;  //  open ones
    char *prompt;  //  bytes of the files, NUL-terminated; NULL without one
    char *workflow;
    char *metadata;
    char output_dir[4096];
} luna_ctl_inputs;

//  Opens everything the command line names and points ctl->job at it, so `inputs` must
//  live until the job is submitted. `prompt` and `workflow` of the first latent file
//  that has them are taken where no file is named. To be closed after any result.
//  LUNA_USAGE, LUNA_NOT_FOUND, LUNA_BAD_REQUEST, LUNA_BAD_LATENT, LUNA_UNSUPPORTED,
//  LUNA_IO, LUNA_NO_MEMORY with the name of the file.
LUNA_MUST_USE luna_err luna_ctl_inputs_open(luna_ctl *ctl, luna_ctl_inputs *inputs);
void luna_ctl_inputs_close(luna_ctl_inputs *inputs);

#endif
