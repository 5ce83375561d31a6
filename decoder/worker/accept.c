#include "decoder/worker/accept.h"

#include "decoder/image/encode.h"

#define SHOWN_BYTES 40

static luna_err refuse(luna_text word, const char *what, const char *offer)
{
    char shown[SHOWN_BYTES];
    luna_text_copy(word, shown, sizeof shown);
    return luna_error(LUNA_UNSUPPORTED, "%s %s is not offered by this decoder; use %s",
                      what, shown, offer);
}

luna_err luna_accept_job(const luna_msg_job *job)
{
    if (job->save_mode.len && !luna_text_is(job->save_mode, "daemon"))
        return refuse(job->save_mode, "save mode", "daemon");
    for (size_t i = 0; i < job->inputs.count; i++) {
        const luna_text word = job->inputs.items[i].format;
        luna_format format;
        LUNA_TRY(luna_format_parse(word.data, word.len, &format));
        LUNA_TRY(luna_image_can(format));
    }
    return LUNA_OK;
}
