#include "common/program.h"

#include <stdio.h>

static void print_error(const char *program)
{
    char line[1024];
    snprintf(line, sizeof line, "%s", luna_error_text());
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';
    fprintf(stderr, "%s: %s\n", program, line);
}

int luna_program_end(const char *program, luna_err err)
{
    const bool written = fflush(stdout) == 0 && !ferror(stdout);
    if (err == LUNA_OK && !written)
        err = luna_error_errno(LUNA_IO, "cannot write the output");
    if (err != LUNA_OK) print_error(program);
    return luna_err_exit(err);
}
