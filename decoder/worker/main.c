//  luna-decoder: takes jobs from the broker, decodes them, saves the pictures.

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "decoder/vae/backend.h"
#include "decoder/worker/settings.h"
#include "decoder/worker/worker.h"

static const char usage[] =
    "usage: luna-decoder [options]\n"
    "  --config FILE     read this file instead of the usual luna.conf\n"
    "  --name NAME       unique name of this decoder (HOST-DEVICE)\n"
    "  --device DEVICE   auto, cpu or cuda:N\n"
    "  --check-config    say whether the settings are right, and end\n"
    "  --print-config    print every setting with its value, and end\n"
    "  --version, --help\n";

typedef enum action { ACTION_SERVE, ACTION_CHECK, ACTION_PRINT, ACTION_SAY } action;

static int fail(luna_err err)
{
    fprintf(stderr, "luna-decoder: %s\n", luna_error_text());
    return luna_err_exit(err);
}

static luna_err bad_usage(const char *word, const char *what)
{
    return luna_error(LUNA_USAGE, "'%.100s' %s; luna-decoder --help lists the options",
                      word, what);
}

static luna_err read_flags(int argc, char **argv, luna_decoder_flags *flags, action *out)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"check-config", no_argument, NULL, 'C'},
                                            {"print-config", no_argument, NULL, 'P'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int flag;
    opterr = 0;
    while ((flag = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (flag) {
            case 'c':
                flags->config = optarg;
                break;
            case 'n':
                flags->name = optarg;
                break;
            case 'd':
                flags->device = optarg;
                break;
            case 'C':
                *out = ACTION_CHECK;
                break;
            case 'P':
                *out = ACTION_PRINT;
                break;
            case 'v':
                printf("luna-decoder %s\n", LUNA_VERSION);
                *out = ACTION_SAY;
                break;
            case 'h':
                fputs(usage, stdout);
                *out = ACTION_SAY;
                break;
            default:
                return bad_usage(argv[optind - 1], "is unknown or lacks its value");
        }
    }
    return optind < argc ? bad_usage(argv[optind], "is not an option") : LUNA_OK;
}

//  Everything that can be known to be wrong before a broker is there.
static luna_err check(const luna_decoder_settings *settings, luna_registry *registry)
{
    const luna_backend *backend = NULL;
    int index = 0;
    LUNA_TRY(luna_registry_roots(registry, settings->vae_roots));
    return luna_backend_find(settings->device, &backend, &index);
}

static luna_err act(action what, const luna_decoder_flags *flags, luna_registry *registry,
                    int *exit_code)
{
    luna_decoder_settings *settings = calloc(1, sizeof *settings);
    if (!settings) return luna_error(LUNA_NO_MEMORY, "no memory for the settings");
    luna_err err = luna_decoder_settings_load(flags, registry, settings);
    if (err == LUNA_OK) luna_log_start("luna-decoder", settings->least);
    if (err == LUNA_OK && what != ACTION_PRINT) err = check(settings, registry);
    if (err == LUNA_OK && what == ACTION_PRINT)
        luna_decoder_settings_print(settings, stdout);
    if (err == LUNA_OK && what == ACTION_CHECK)
        puts("luna-decoder: the settings are right");
    if (err == LUNA_OK && what == ACTION_SERVE)
        err = luna_worker_serve(settings, registry, exit_code);
    free(settings);
    return err;
}

int main(int argc, char **argv)
{
    luna_backends_start(argv);
    luna_decoder_flags flags = {0};
    action what = ACTION_SERVE;
    int exit_code = 0;
    luna_err err = read_flags(argc, argv, &flags, &what);
    if (err != LUNA_OK) return fail(err);
    if (what == ACTION_SAY) return 0;
    luna_registry *registry = luna_registry_new();
    if (!registry) return fail(luna_error(LUNA_NO_MEMORY, "no memory to start"));
    err = act(what, &flags, registry, &exit_code);
    luna_registry_free(&registry);
    return err == LUNA_OK ? exit_code : fail(err);
}
