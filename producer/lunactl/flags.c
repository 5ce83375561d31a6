//  Reading a command line by the tables of commands.c

#include "producer/lunactl/flags.h"

#include "producer/lunactl/commands.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MOST 1e9

//  "--name=value" and "--name value" are the same; `inline_value` is NULL without '='.
typedef struct argument {
    const char *text;
    size_t name_len;
    const char *inline_value;
} argument;

static argument split(const char *text)
{
    const char *equals = strchr(text, '=');
    return (argument){.text = text,
                      .name_len = equals ? (size_t)(equals - text) : strlen(text),
                      .inline_value = equals ? equals + 1 : NULL};
}

static const luna_flag *find_in(const luna_flag *flags, size_t count, const argument *arg)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(flags[i].name) == arg->name_len &&
            strncmp(flags[i].name, arg->text, arg->name_len) == 0)
            return &flags[i];
    return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
    const size_t len = strlen(value);
    for (const char *at = choices; at; at = strchr(at, '|')) {
        if (*at == '|') at++;
        if (strcspn(at, "|") == len && strncmp(at, value, len) == 0) return true;
    }
    return false;
}

static luna_err bad_value(const luna_flag *flag, const char *value)
{
    if (flag->kind == LUNA_FLAG_U32)
        return luna_error(LUNA_USAGE, "%s %s: a number from %u to %u is needed",
                          flag->name, value, flag->least, flag->most);
    return luna_error(LUNA_USAGE, "%s %s: expected %s", flag->name, value, flag->value);
}

static bool parse_u64(const char *value, uint64_t *out)
{
    char *end;
    if (*value < '0' || *value > '9') return false;
    errno = 0;
    *out = strtoull(value, &end, 10);
    return *end == '\0' && errno == 0;
}

//  A job that may take longer than this needs no deadline.
static bool parse_seconds(const char *value, uint64_t *ms)
{
    char *end;
    const double seconds = strtod(value, &end);
    if (end == value || *end || !(seconds > 0 && seconds <= SECONDS_MOST)) return false;
    *ms = (uint64_t)ceil(seconds * 1000);
    return true;
}

static luna_err write_value(const luna_flag *flag, const char *value, void *at)
{
    uint64_t number;
    char *end;
    switch (flag->kind) {
        case LUNA_FLAG_TEXT:
            if (strchr(flag->value, '|') && !is_choice(flag->value, value)) break;
            *(const char **)at = value;
            return LUNA_OK;
        case LUNA_FLAG_U32:
            if (!parse_u64(value, &number) || number < flag->least || number > flag->most)
                break;
            *(uint32_t *)at = (uint32_t)number;
            return LUNA_OK;
        case LUNA_FLAG_U64:
            if (!parse_u64(value, at)) break;
            return LUNA_OK;
        case LUNA_FLAG_REAL:
            *(double *)at = strtod(value, &end);
            if (end == value || *end || !isfinite(*(double *)at)) break;
            return LUNA_OK;
        case LUNA_FLAG_MS:
            if (!parse_seconds(value, at)) break;
            return LUNA_OK;
        case LUNA_FLAG_ON:
        case LUNA_FLAG_OFF:
            *(int32_t *)at = flag->kind == LUNA_FLAG_ON;
            return LUNA_OK;
        case LUNA_FLAG_LATENTS:
            break;
    }
    return bad_value(flag, value);
}

static luna_err add_latents(luna_ctl *ctl, const char *spec)
{
    if (ctl->job.input_count == LUNA_INPUTS_MAX)
        return luna_error(LUNA_USAGE, "--latents %s: a job takes at most %d", spec,
                          LUNA_INPUTS_MAX);
    ctl->latents[ctl->job.input_count++] = spec;
    return LUNA_OK;
}

static luna_err take_flag(luna_ctl *ctl, const luna_flag *flag, const char *value)
{
    if (flag->kind == LUNA_FLAG_LATENTS) return add_latents(ctl, value);
    if (flag->of == LUNA_FLAG_OF_CTL)
        return write_value(flag, value, (char *)ctl + flag->offset);
    const size_t count = ctl->job.input_count;
    for (size_t i = count ? count - 1 : 0; i < (count ? count : LUNA_INPUTS_MAX); i++)
        LUNA_TRY(write_value(flag, value, (char *)&ctl->job.inputs[i] + flag->offset));
    return LUNA_OK;
}

static bool takes_value(const luna_flag *flag)
{
    return flag->kind != LUNA_FLAG_ON && flag->kind != LUNA_FLAG_OFF;
}

static luna_err take_word(luna_ctl *ctl, const char *word, const luna_command **command)
{
    if (ctl->word_count == LUNA_CTL_WORDS)
        return luna_error(LUNA_USAGE, "'%.100s' is one word too many", word);
    if (ctl->word_count == 0) {
        *command = luna_command_find(word);
        if (!*command)
            return luna_error(LUNA_USAGE,
                              "there is no command '%.100s'; lunactl --help lists them",
                              word);
    }
    ctl->words[ctl->word_count++] = word;
    return LUNA_OK;
}

static luna_err take_option(luna_ctl *ctl, char ***at, const luna_command *command)
{
    const argument arg = split(**at);
    const luna_flag *flag = find_in(luna_common_flags, luna_common_flag_count, &arg);
    if (!flag && command) flag = find_in(command->flags, command->flag_count, &arg);
    if (!flag)
        return luna_error(LUNA_USAGE,
                          "unknown option %.*s; lunactl %s%s--help lists them",
                          (int)arg.name_len, arg.text, command ? command->name : "",
                          command ? " " : "");
    const char *value = arg.inline_value;
    if (!takes_value(flag) && value)
        return luna_error(LUNA_USAGE, "%s takes no value", flag->name);
    if (takes_value(flag) && !value) {
        value = *++*at;
        if (!value)
            return luna_error(LUNA_USAGE, "%s needs a value: %s", flag->name,
                              flag->value);
    }
    return take_flag(ctl, flag, value);
}

static luna_err check_words(const luna_ctl *ctl, const luna_command *command)
{
    const size_t words = ctl->word_count - 1;
    if (words >= command->least_words && words <= command->most_words) return LUNA_OK;
    return luna_error(LUNA_USAGE, "usage: lunactl %s%s%s; see lunactl %s --help",
                      command->name, *command->words ? " " : "", command->words,
                      command->name);
}

luna_err luna_flags_read(luna_ctl *ctl, int argc, char **argv,
                         const luna_command **command)
{
    bool only_words = false;
    *command = NULL;
    for (char **at = argv + 1; argc > 1 && *at; at++) {
        if (!only_words && strcmp(*at, "--") == 0)
            only_words = true;
        else if (!only_words && (*at)[0] == '-' && (*at)[1])
            LUNA_TRY(take_option(ctl, &at, *command));
        else
            LUNA_TRY(take_word(ctl, *at, command));
    }
    if (*command && !ctl->help && !ctl->version) return check_words(ctl, *command);
    return LUNA_OK;
}
