//  luna-broker - takes jobs, keeps them safe, hands them to decoders

#include "broker/broker.h"
#include "common/log.h"
#include "common/program.h"

#include <czmq.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536 };

static const char usage[] =
    "usage: luna-broker [--config FILE]\n"
    "       luna-broker [--config FILE] --check-config | --print-config | --recover\n"
    "       luna-broker --version | --help\n"
    "\n"
    "  --config FILE    read this file and FILE.d/*.conf instead of the usual ones\n"
    "  --check-config   say whether the settings are right, and end\n"
    "  --print-config   write every setting with its value and meaning, and end\n"
    "  --recover        with the broker stopped: rebuild the jobs from the spool "
    "folder,\n"
    "                   moving a damaged database aside, and end\n"
    "\n"
    "Each setting can be given in the environment as LUNA_SECTION_KEY; LUNA_HOME=DIR\n"
    "moves every default under DIR. SIGTERM stops in good order,\n"
    "SIGHUP reads the settings again. See luna-broker(8).\n";

typedef enum action { SERVE, CHECK, PRINT, RECOVER, TELL_VERSION, TELL_HELP } action;

typedef struct command {
    const char *config;
    action action;
} command;

static luna_err parse(int argc, char **argv, command *out)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, CHECK},
                                            {"print-config", no_argument, NULL, PRINT},
                                            {"recover", no_argument, NULL, RECOVER},
                                            {"version", no_argument, NULL, TELL_VERSION},
                                            {"help", no_argument, NULL, TELL_HELP},
                                            {NULL, 0, NULL, 0}};
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        if (c == '?' || c == ':')
            return luna_error(LUNA_USAGE,
                              "'%.100s' is unknown or lacks its value; luna-broker "
                              "--help lists the options",
                              argv[optind - 1]);
        if (c == 'c')
            out->config = optarg;
        else
            out->action = (action)c;
    }
    if (optind < argc)
        return luna_error(
            LUNA_USAGE, "'%.100s' is not an option; luna-broker --help lists the options",
            argv[optind]);
    return LUNA_OK;
}

//  Before any thread exists, so that all inherit the mask.
static luna_err catch_signals(int *fd)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    zsys_handler_set(NULL);
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *fd >= 0 ? LUNA_OK : luna_error_errno(LUNA_INTERNAL, "signalfd");
}

//  Each decoder and each client costs some descriptors; without the right to raise
//  the limit the usual one has to do. ZeroMQ's own limit must not come first: CZMQ ends
//  the process at it, while a want of descriptors is seen before (work.c). Sockets that
//  were closed count until ZeroMQ has got round to them.
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    const rlim_t wanted = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
    if (limit.rlim_cur < wanted) limit.rlim_cur = wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
    zsys_set_max_sockets(DESCRIPTORS - 1);
}

//  malloc gives large blocks back to the kernel at once, which then finds and clears each
//  page anew for the next job: a third of the time that 64 MiB take. Kept, they are used
//  again; the broker trims what is left over from time to time. One arena, because
//  only the main one can hold blocks of any size. Before any thread exists.
static void keep_memory(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

static luna_err serve(const luna_settings *settings, const char *config)
{
    int signal_fd;
    luna_log_level level;
    LUNA_TRY(luna_log_level_parse(settings->log_level, &level));
    luna_log_start("luna-broker", level);
    raise_descriptor_limit();
    keep_memory();
    LUNA_TRY(catch_signals(&signal_fd));
    const luna_err err = luna_broker_run(settings, config, signal_fd);
    close(signal_fd);
    if (err == LUNA_OK) luna_log(LUNA_LOG_INFO, "stopped", "jobs=safe");
    return err;
}

static luna_err recover(const luna_settings *settings)
{
    size_t active;
    LUNA_TRY(luna_broker_recover(settings, &active));
    printf("luna-broker: %zu jobs are active; start the broker\n", active);
    return LUNA_OK;
}

static luna_err act(const command *what)
{
    if (what->action == TELL_HELP) fputs(usage, stdout);
    if (what->action == TELL_VERSION) puts("luna-broker " LUNA_VERSION);
    if (what->action == TELL_HELP || what->action == TELL_VERSION) return LUNA_OK;
    static luna_settings settings;
    LUNA_TRY(luna_settings_load(what->config, &settings));
    if (what->action == PRINT)
        luna_config_print(&luna_settings_config, &settings, stdout);
    if (what->action == CHECK) puts("luna-broker: the settings are right");
    if (what->action == RECOVER) return recover(&settings);
    return what->action == SERVE ? serve(&settings, what->config) : LUNA_OK;
}

int main(int argc, char **argv)
{
    command what = {.action = SERVE};
    luna_err err = parse(argc, argv, &what);
    if (err == LUNA_OK) err = act(&what);
    return luna_program_end("luna-broker", err);
}
