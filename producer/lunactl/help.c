//  The help of the program and of each command, from the tables of commands.c

#include "producer/lunactl/commands.h"

#include <string.h>

static const char id_note[] =
    "An ID is a whole job id, or at least 8 characters of its beginning or its end if\n"
    "only one job has them.\n";
static const char exit_note[] =
    "\nExit codes: 0 success, 64 usage, 65 bad data, 66 not found, 69 no broker or\n"
    "device, 70 internal, 73 cannot create, 74 I/O, 75 try again, 76 protocol,\n"
    "78 configuration. With --json an error is an object on stderr.\n";

static void print_flags(const luna_flag *flags, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char left[80];
        snprintf(left, sizeof left, "%s%s%s", flags[i].name, flags[i].value ? " " : "",
                 flags[i].value ? flags[i].value : "");
        printf("  %-28s%s%*s%s\n", left, strlen(left) < 28 ? "" : "\n",
               strlen(left) < 28 ? 0 : 30, "", flags[i].help);
    }
}

static void print_program_help(void)
{
    printf(
        "usage: lunactl [--broker ENDPOINT] [--json] COMMAND [...]\n\n"
        "Talks to a luna-broker: submits latents, shows and steers jobs.\n\nCommands:\n");
    for (size_t i = 0; i < luna_command_count; i++) {
        char left[80];
        snprintf(left, sizeof left, "%s %s", luna_commands[i].name,
                 luna_commands[i].words);
        printf("  %-28s%s\n", left, luna_commands[i].help);
    }
}

void luna_flags_help(const luna_command *command)
{
    if (command) {
        printf("usage: lunactl %s%s%s%s\n\n%s.\n", command->name,
               command->flag_count ? " [OPTIONS]" : "", *command->words ? " " : "",
               command->words, command->help);
        if (command->note) printf("%s", command->note);
        if (strstr(command->words, "ID")) printf("%s", id_note);
        if (command->flag_count) printf("\nOptions:\n");
        print_flags(command->flags, command->flag_count);
    } else {
        print_program_help();
    }
    printf("\nEvery command:\n");
    print_flags(luna_common_flags, luna_common_flag_count);
    if (!command) printf("%s", exit_note);
}
