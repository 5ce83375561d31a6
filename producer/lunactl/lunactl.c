#include "producer/lunactl/lunactl.h"

#include "common/program.h"
#include "producer/lunactl/flags.h"

#include <stdio.h>

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

int luna_ctl_main(int argc, char **argv)
{
    const luna_command *command = NULL;
    luna_ctl ctl = {.limit = 100};
    luna_submission_init(&ctl.job);
    luna_err err = luna_flags_read(&ctl, argc, argv, &command);
    if (err == LUNA_OK) err = run(&ctl, command);
    luna_client_destroy(&ctl.client, 0);
    return luna_program_end("lunactl", err);
}
