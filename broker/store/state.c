#include "broker/store/state.h"

static const char *const names[LUNA_JOB_STATES] = {
#define X(symbol, name) name,
    LUNA_JOB_STATE_TABLE(X)
#undef X
};

const char *luna_job_state_name(luna_job_state state)
{
    return (unsigned)state < LUNA_JOB_STATES ? names[state] : "unknown";
}

luna_err luna_job_state_parse(luna_text name, luna_job_state *out)
{
    for (unsigned i = 0; i < LUNA_JOB_STATES; i++) {
        if (!luna_text_is(name, names[i])) continue;
        *out = (luna_job_state)i;
        return LUNA_OK;
    }
    if (name.len == 0) {
        *out = LUNA_JOB_ANY;
        return LUNA_OK;
    }
    return luna_error(LUNA_BAD_REQUEST,
                      "\"%.*s\" is no job state; use pending, in_progress, completed, "
                      "failed or cancelled",
                      (int)(name.len < 40 ? name.len : 40), name.data);
}

bool luna_job_state_is_active(luna_job_state state)
{
    return state == LUNA_JOB_PENDING || state == LUNA_JOB_IN_PROGRESS;
}
