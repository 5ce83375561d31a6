#include "producer/lunactl/lunactl.h"

#include <stdio.h>

//  With --json: {"jobs": [...]}; else one id a line.
static luna_err tell(luna_ctl *ctl, json_t *ids)
{
    if (ctl->json) return luna_ctl_print_json(json_pack("{s:o}", "jobs", ids));
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) printf("%s\n", json_string_value(id));
    json_decref(ids);
    return LUNA_OK;
}

luna_err luna_ctl_cancel(luna_ctl *ctl)
{
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_cancel(ctl->client, ctl->words[1], LUNA_CTL_WAIT_MS)));
    return tell(ctl, json_pack("[s]", ctl->words[1]));
}

//  Stops at the first that cannot be put back; those before it stay put back.
static luna_err retry_failed(luna_ctl *ctl, json_t *ids)
{
    luna_answer *answer;
    luna_err err = LUNA_OK;
    LUNA_TRY(luna_ctl_rc(
        luna_query_jobs(ctl->client, "failed", 0, LUNA_CTL_WAIT_MS, &answer)));
    for (size_t i = 0; i < answer->job_count && err == LUNA_OK; i++) {
        const char *id = answer->jobs[i].id;
        err = luna_ctl_rc(luna_retry(ctl->client, id, LUNA_CTL_WAIT_MS));
        if (err == LUNA_OK) json_array_append_new(ids, json_string(id));
    }
    luna_answer_free(&answer);
    return err;
}

luna_err luna_ctl_retry(luna_ctl *ctl)
{
    const bool has_id = ctl->word_count > 1;
    if (has_id == (ctl->failed != 0))
        return luna_error(LUNA_USAGE, "retry needs either an ID or --failed");
    LUNA_TRY(luna_ctl_connect(ctl));
    json_t *ids = json_array();
    luna_err err = LUNA_OK;
    if (has_id) {
        err = luna_ctl_rc(luna_retry(ctl->client, ctl->words[1], LUNA_CTL_WAIT_MS));
        if (err == LUNA_OK) json_array_append_new(ids, json_string(ctl->words[1]));
    } else {
        err = retry_failed(ctl, ids);
    }
    if (err == LUNA_OK || json_array_size(ids))
        LUNA_TRY(tell(ctl, ids));
    else
        json_decref(ids);
    return err;
}
