//  The public return codes are the internal error table under another name, so that
//  luna.h needs no other header; this file proves that they agree.

#include "common/err.h"
#include "common/id.h"
#include "producer/luna/luna.h"
#include "proto/message.h"

#define X(symbol, name, http, sysexit, retry, meaning)          \
    _Static_assert((int)LUNA_RC_##symbol == (int)LUNA_##symbol, \
                   "luna_rc and luna_err must agree");
LUNA_ERR_TABLE(X)
#undef X
_Static_assert((int)LUNA_RC_INTERNAL == (int)LUNA_ERR_COUNT - 1,
               "luna_rc must have every luna_err");
_Static_assert(LUNA_JOB_ID_BYTES == LUNA_ID_TEXT_BYTES, "an id as text");
_Static_assert(LUNA_INPUTS_MAX == LUNA_MAX_INPUTS, "inputs of a job");
_Static_assert(LUNA_DIMS_MAX == LUNA_MAX_DIMS, "dimensions of a latent");

const char *luna_rc_name(int rc)
{
    return luna_err_name((luna_err)rc);
}

const char *luna_last_error(void)
{
    return luna_error_text();
}

const char *luna_version(void)
{
    return LUNA_VERSION;
}

int luna_api_version(void)
{
    return LUNA_API_VERSION;
}
