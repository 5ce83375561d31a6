//  commands.h - the tables of commands and their flags

#ifndef LUNA_LUNACTL_COMMANDS_H
#define LUNA_LUNACTL_COMMANDS_H

#include "producer/lunactl/flags.h"

extern const luna_flag luna_common_flags[];
extern const size_t luna_common_flag_count;
extern const luna_command luna_commands[];
extern const size_t luna_command_count;

#endif
