//  luna-decoder - takes jobs from the broker, decodes them, saves the pictures

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/program.h"
#include "decoder/vae/backend.h"
#include "decoder/worker/settings.h"
#include "decoder/worker/worker.h"

static const char usage[] =
    "usage: luna-decoder [options]\n"
    "  --config FILE     read this file instead of the usual luna.conf\n"
    "  --name NAME       unique name of this decoder (HOST-DEVICE)\n"
    "  --device DEVICE   auto, cpu, cuda:N or cuda:GPU-UUID (or its beginning)\n"
    "  --check-config    say whether the settings are right, and end\n"
    "  --print-config    print every setting with its value, and end\n"
    "  --version, --help\n";

typedef enum action { SERVE, CHECK, PRINT, TELL_VERSION, TELL_HELP } action;

typedef struct command {
    luna_decoder_flags flags;
    action action;
} command;

static luna_err bad_usage(const char *word, const char *what)
{
    return luna_error(LUNA_USAGE, "'%.100s' %s; luna-decoder --help lists the options",
                      word, what);
}

static luna_err take(int option, command *out)
{
    if (option == 'c')
        out->flags.config = optarg;
    else if (option == 'n')
        out->flags.name = optarg;
    else if (option == 'd')
        out->flags.device = optarg;
    else if (option == '?')
        return LUNA_USAGE;
    else
        out->action = (action)option;
    return LUNA_OK;
}

static luna_err parse(int argc, char **argv, command *out)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"check-config", no_argument, NULL, CHECK},
                                            {"print-config", no_argument, NULL, PRINT},
                                            {"version", no_argument, NULL, TELL_VERSION},
                                            {"help", no_argument, NULL, TELL_HELP},
                                            {NULL, 0, NULL, 0}};
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (take(option, out) != LUNA_OK)
            return bad_usage(argv[optind - 1], "is unknown or lacks its value");
    return optind < argc ? bad_usage(argv[optind], "is not an option") : LUNA_OK;
}

//  Everything that can be known to be wrong before a broker is there.
static luna_err check(luna_decoder_settings *settings, luna_registry *registry)
{
    const luna_backend *backend = NULL;
    int index = 0;
    char device[LUNA_DEVICE_BYTES];
    LUNA_TRY(luna_registry_roots(registry, settings->vae_roots));
    LUNA_TRY(luna_backend_find(settings->device, &backend, &index));
    luna_backend_name(backend, index, device);
    luna_decoder_settings_name(settings, device);
    return LUNA_OK;
}

static luna_err run(const command *what, luna_registry *registry,
                    luna_decoder_settings *settings)
{
    LUNA_TRY(luna_decoder_settings_load(&what->flags, registry, settings));
    luna_log_start("luna-decoder", settings->least);
    if (what->action == PRINT) {
        luna_decoder_settings_print(settings, stdout);
        return LUNA_OK;
    }
    LUNA_TRY(check(settings, registry));
    if (what->action == SERVE) return luna_worker_serve(settings, registry);
    puts("luna-decoder: the settings are right");
    return LUNA_OK;
}

static luna_err act(const command *what)
{
    if (what->action == TELL_HELP) fputs(usage, stdout);
    if (what->action == TELL_VERSION) puts("luna-decoder " LUNA_VERSION);
    if (what->action == TELL_HELP || what->action == TELL_VERSION) return LUNA_OK;
    luna_registry *registry = luna_registry_new();
    luna_decoder_settings *settings = calloc(1, sizeof *settings);
    const luna_err err = registry && settings
                             ? run(what, registry, settings)
                             : luna_error(LUNA_NO_MEMORY, "no memory to start");
    free(settings);
    luna_registry_free(&registry);
    return err;
}

int main(int argc, char **argv)
{
    command what = {.action = SERVE};
    luna_err err = parse(argc, argv, &what);
    if (err == LUNA_OK) err = act(&what);
    return luna_program_end("luna-decoder", err);
}
