//  flags.h - the command lines as data
//
//  A flag's value is written to its field at once. Flags of an input apply to the
//  --latents before them; before the first one, to all.

#ifndef LUNA_LUNACTL_FLAGS_H
#define LUNA_LUNACTL_FLAGS_H

#include "producer/lunactl/lunactl.h"

#include <stdio.h>

typedef enum luna_flag_kind {
    LUNA_FLAG_TEXT,    //  const char *
    LUNA_FLAG_U32,     //  uint32_t, least to most
    LUNA_FLAG_U64,     //  uint64_t
    LUNA_FLAG_REAL,    //  double
    LUNA_FLAG_MS,      //  uint64_t; given in seconds, more than 0
    LUNA_FLAG_ON,      //  int32_t: 1; takes no value
    LUNA_FLAG_OFF,     //  int32_t: 0; takes no value
    LUNA_FLAG_LATENTS  //  another input; no field
} luna_flag_kind;

typedef enum luna_flag_of {
    LUNA_FLAG_OF_CTL,   //  offset in luna_ctl
    LUNA_FLAG_OF_INPUT  //  offset in luna_latent
} luna_flag_of;

typedef struct luna_flag {
    const char *name;  //  "--vae"
    luna_flag_kind kind;
    luna_flag_of of;
    size_t offset;
    const char *value;  //  as shown in the help; "a|b|c" for TEXT: only these words
    const char *help;
    uint32_t least, most;  //  U32
} luna_flag;

typedef struct luna_command {
    const char *name;
    const char *words;  //  what follows it, for the help: "ID"
    const char *help;   //  one line
    const char *note;   //  further lines of its own help; NULL for none
    size_t least_words, most_words;
    luna_err (*run)(luna_ctl *ctl);
    const luna_flag *flags;
    size_t flag_count;
} luna_command;

//  The command of that name, or NULL.
const luna_command *luna_command_find(const char *name);

//  Reads a whole command line; *command is NULL when it names none. LUNA_USAGE with
//  the word that is wrong.
LUNA_MUST_USE luna_err luna_flags_read(luna_ctl *ctl, int argc, char **argv,
                                       const luna_command **command);

//  The help of one command, or with NULL of the program.
void luna_flags_help(const luna_command *command);

#endif
