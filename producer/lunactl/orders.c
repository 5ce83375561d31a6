//  Orders: about jobs, then about the whole broker and its decoders
//
//  An order for several jobs is given for each; one that fails is told and the rest goes
//  on. The exit code is the first failure's.

#include "producer/lunactl/lunactl.h"

#include <stdio.h>
#include <string.h>

typedef int job_order(luna_client *client, const char *job_id, int32_t timeout_ms);

//  With --json {"jobs": [...]}, else an id a line. Frees `ids`.
static luna_err tell_jobs(luna_ctl *ctl, json_t *ids)
{
    size_t i;
    json_t *id;
    if (ctl->json) return luna_ctl_print_json(json_pack("{s:o}", "jobs", ids));
    json_array_foreach(ids, i, id) printf("%s\n", json_string_value(id));
    json_decref(ids);
    return LUNA_OK;
}

static luna_err order_one(luna_ctl *ctl, const char *word, job_order *order, json_t *ids)
{
    char id[LUNA_JOB_ID_BYTES];
    LUNA_TRY(luna_ctl_job_id(ctl, word, id));
    LUNA_TRY(luna_ctl_rc(order(ctl->client, id, LUNA_CTL_WAIT_MS)));
    json_array_append_new(ids, json_string(id));
    return LUNA_OK;
}

//  All words behind the command.
static luna_err order_each(luna_ctl *ctl, job_order *order)
{
    luna_err first = LUNA_OK;
    LUNA_TRY(luna_ctl_connect(ctl));
    json_t *ids = json_array();
    for (size_t i = 1; i < ctl->word_count; i++) {
        const luna_err err = order_one(ctl, ctl->words[i], order, ids);
        if (err != LUNA_OK) luna_ctl_complain(ctl, err, ctl->words[i]);
        if (first == LUNA_OK) first = err;
    }
    if (first == LUNA_OK || json_array_size(ids) > 0)
        LUNA_TRY(tell_jobs(ctl, ids));
    else
        json_decref(ids);
    return first;
}

luna_err luna_ctl_cancel(luna_ctl *ctl)
{
    return order_each(ctl, luna_cancel);
}

//  With --json {"changed": N}.
static luna_err tell_changed(luna_ctl *ctl, const char *done, uint64_t changed,
                             const char *what)
{
    char count[LUNA_AMOUNT_BYTES];
    if (ctl->json)
        return luna_ctl_print_json(json_pack("{s:I}", "changed", (json_int_t)changed));
    luna_ctl_count(changed, what, count);
    printf("%s %s\n", count, done);
    return LUNA_OK;
}

luna_err luna_ctl_retry(luna_ctl *ctl)
{
    uint64_t changed = 0;
    if ((ctl->word_count > 1) == (ctl->failed != 0))
        return luna_error(LUNA_USAGE, "retry needs either an ID or --failed");
    if (!ctl->failed) return order_each(ctl, luna_retry);
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_retry_failed(ctl->client, LUNA_CTL_TAKE_MS, &changed)));
    return tell_changed(ctl, "put back in the queue", changed, "job");
}

luna_err luna_ctl_next(luna_ctl *ctl)
{
    return order_each(ctl, luna_run_next);
}

luna_err luna_ctl_priority(luna_ctl *ctl)
{
    char id[LUNA_JOB_ID_BYTES];
    const char *priority = ctl->words[2];
    if (strlen(priority) != 1 || !strchr("0123456789", priority[0]))
        return luna_error(LUNA_USAGE, "priority %.40s: a number from 0 to 9 is needed",
                          priority);
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_job_id(ctl, ctl->words[1], id));
    LUNA_TRY(luna_ctl_rc(luna_prioritise(ctl->client, id, (uint32_t)(priority[0] - '0'),
                                         LUNA_CTL_WAIT_MS)));
    return tell_jobs(ctl, json_pack("[s]", id));
}

luna_err luna_ctl_pause(luna_ctl *ctl)
{
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_pause(ctl->client, LUNA_CTL_WAIT_MS)));
    if (ctl->json) return luna_ctl_print_json(json_pack("{s:b}", "paused", 1));
    printf("paused: no attempt is started until lunactl resume\n");
    return LUNA_OK;
}

luna_err luna_ctl_resume(luna_ctl *ctl)
{
    uint64_t changed = 0;
    const char *decoder = ctl->word_count > 1 ? ctl->words[1] : NULL;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_resume(ctl->client, decoder, LUNA_CTL_WAIT_MS, &changed)));
    return tell_changed(ctl, "resumed", changed, "decoder");
}
