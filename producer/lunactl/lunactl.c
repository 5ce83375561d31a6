#include "producer/lunactl/lunactl.h"

#include "producer/lunactl/flags.h"

#include <string.h>

luna_err luna_ctl_rc(int rc)
{
    return rc == LUNA_RC_OK ? LUNA_OK : luna_error((luna_err)rc, "%s", luna_last_error());
}

//  One job a process: it needs neither a bound nor a buffer prepared for the next.
luna_err luna_ctl_connect(luna_ctl *ctl)
{
    luna_options options;
    luna_options_init(&options);
    options.name = "lunactl";
    options.queue_bytes = UINT64_MAX;
    options.warm_bytes = 0;
    options.outbox_dir = "";  //  the caller waits for the receipt
    LUNA_TRY(luna_ctl_rc(luna_client_new(ctl->broker, &options, &ctl->client)));
    return luna_ctl_rc(luna_wait_available(ctl->client, LUNA_CTL_WAIT_MS));
}

static luna_err run(luna_ctl *ctl, const luna_command *command)
{
    if (ctl->help) {
        luna_flags_help(command);
        return LUNA_OK;
    }
    if (ctl->version) {
        printf("lunactl %s\n", luna_version());
        return LUNA_OK;
    }
    if (!command)
        return luna_error(LUNA_USAGE, "a command is needed; lunactl --help lists them");
    return command->run(ctl);
}

void luna_ctl_complain(luna_ctl *ctl, luna_err err, const char *id)
{
    ctl->told = true;
    fflush(stdout);
    if (ctl->json) {
        json_t *error = luna_ctl_json_error(err, id);
        json_dumpf(error, stderr, JSON_COMPACT);
        fputc('\n', stderr);
        json_decref(error);
        return;
    }
    luna_page page = luna_page_on(stderr);
    const bool named = !id || strstr(luna_error_text(), id);
    luna_page_print(&page, LUNA_STYLE_PLAIN, "lunactl: %s%s%s", named ? "" : id,
                    named ? "" : ": ", luna_error_text());
    luna_page_end(&page);
}

//  A wrong command line may hide the flag that says how errors are to be printed.
static bool asks_for_json(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0) return true;
    return false;
}

//  Output that could not be written must not pass for success.
static int end(luna_ctl *ctl, luna_err err)
{
    if (err == LUNA_OK && (fflush(stdout) != 0 || ferror(stdout)))
        err = luna_error_errno(LUNA_IO, "cannot write the output");
    if (err != LUNA_OK && !ctl->told) luna_ctl_complain(ctl, err, NULL);
    return luna_err_exit(err);
}

int luna_ctl_main(int argc, char **argv)
{
    const luna_command *command = NULL;
    luna_ctl ctl = {.limit = 100};
    luna_submission_init(&ctl.job);
    luna_err err = luna_flags_read(&ctl, argc, argv, &command);
    if (err != LUNA_OK) ctl.json = asks_for_json(argc, argv);
    if (err == LUNA_OK) err = run(&ctl, command);
    luna_answer_free(&ctl.known);
    luna_client_destroy(&ctl.client, 0);
    return end(&ctl, err);
}
