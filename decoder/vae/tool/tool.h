//  tool.h - luna-vae: shared by its commands

#ifndef LUNA_DECODER_VAE_TOOL_H
#define LUNA_DECODER_VAE_TOOL_H

#include "decoder/vae/vae.h"

//  Everything the command line can say; a command looks at its own part.
typedef struct tool_options {
    luna_vae_options vae;
    const char *model;
    const char *latents;  //  FILE[:TENSOR]
    const char *output;
    const char *random;  //  family of a model with random weights
    const char *shape;   //  NxWIDTHxHEIGHT in pixels
    const char *before;  //  another, decoded first; NULL: none
    int runs;            //  of bench; 0: as many as fit in two seconds, at least 3
    bool raw;
    bool json;
} tool_options;

luna_err tool_info(const tool_options *options);
luna_err tool_decode(const tool_options *options);
luna_err tool_bench(const tool_options *options);
luna_err tool_selftest(const tool_options *options);

//  Reads the whole command line after the command's name into *options. LUNA_USAGE.
luna_err tool_options_read(int argc, char **argv, tool_options *options);

#endif
