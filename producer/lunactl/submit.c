#include "producer/lunactl/inputs.h"

#include <stdio.h>

//  The job id is worth most when something goes wrong after it: it stands in each
//  error, so that nobody submits twice what may have arrived.
static luna_err send_job(luna_ctl *ctl, char id[LUNA_JOB_ID_BYTES], luna_receipt *receipt)
{
    LUNA_TRY(luna_ctl_rc(luna_submit(ctl->client, &ctl->job, id)));
    const int rc = luna_wait_receipt(ctl->client, id, LUNA_CTL_TAKE_MS, receipt);
    if (rc == LUNA_RC_OK) return LUNA_OK;
    if (rc == LUNA_RC_TIMEOUT || rc == LUNA_RC_UNAVAILABLE)
        return luna_error((luna_err)rc, "%s; submit it again with --job-id %s",
                          luna_last_error(), id);
    return luna_error((luna_err)rc, "refused: %s", luna_last_error());
}

static luna_err print_receipt(luna_ctl *ctl, const char *id, const luna_receipt *receipt)
{
    json_t *value =
        json_pack("{s:s, s:s, s:I, s:I, s:b}", "id", id, "status", "accepted", "position",
                  (json_int_t)receipt->position, "images", (json_int_t)receipt->images,
                  "duplicate", receipt->duplicate);
    if (!ctl->wait) return luna_ctl_print_json(value);
    json_object_set_new(value, "kind", json_string("receipt"));
    return luna_ctl_print_json_line(value);
}

static luna_err submit(luna_ctl *ctl, luna_ctl_inputs *inputs)
{
    char id[LUNA_JOB_ID_BYTES];
    luna_receipt receipt;
    LUNA_TRY(luna_ctl_inputs_open(ctl, inputs));
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(send_job(ctl, id, &receipt));
    if (ctl->json) {
        LUNA_TRY(print_receipt(ctl, id, &receipt));
    } else {
        printf("%s\n", id);
        fflush(stdout);
    }
    return ctl->wait ? luna_ctl_follow(ctl, id) : LUNA_OK;
}

luna_err luna_ctl_submit(luna_ctl *ctl)
{
    luna_ctl_inputs inputs;
    const luna_err err = submit(ctl, &inputs);
    luna_ctl_inputs_close(&inputs);
    return err;
}
