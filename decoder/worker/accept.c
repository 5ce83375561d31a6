#include "decoder/worker/accept.h"

#include "common/log.h"
#include "decoder/image/encode.h"

#define SHOWN_BYTES 40

static luna_err refuse(luna_text word, const char *what, const char *offer)
{
    char shown[SHOWN_BYTES];
    luna_text_copy(word, shown, sizeof shown);
    return luna_error(LUNA_UNSUPPORTED, "%s %s is not offered by this decoder; use %s",
                      what, shown, offer);
}

static luna_err can_write(luna_text word)
{
    luna_format format;
    LUNA_TRY(luna_format_parse(word.data, word.len, &format));
    return luna_image_can(format);
}

luna_err luna_accept_job(const luna_msg_job *job)
{
    if (job->save_mode.len && !luna_text_is(job->save_mode, "daemon"))
        return refuse(job->save_mode, "save mode", "daemon");
    for (size_t i = 0; i < job->inputs.count; i++)
        LUNA_TRY(can_write(job->inputs.items[i].format));
    return LUNA_OK;
}

luna_formats luna_accept_formats(void)
{
    luna_formats formats = 0;
    for (size_t i = 0; i < LUNA_FORMATS_COUNT; i++) {
        const luna_text word = luna_text_of(luna_formats_word(i));
        if (can_write(word) == LUNA_OK)
            formats |= luna_formats_of(word);
        else
            luna_log(LUNA_LOG_INFO, "no_format", "format=%s detail=\"%s\"", word.data,
                     luna_error_text());
    }
    return formats;
}
