#include "decoder/vae/selftest.h"

#include <stdio.h>

#include "decoder/vae/tool/tool.h"

luna_err tool_selftest(const tool_options *options)
{
    luna_selftest_result r;
    LUNA_TRY(luna_selftest(options->vae.device, options->vae.precision, &r));
    printf(
        "%s: %.1f dB from plain C, %.0f needed; open %.0f ms, first decode %.0f ms, "
        "second %.1f ms\n",
        options->vae.device, r.distance_db, r.needed_db, r.open_ms, r.decode_ms,
        r.again_ms);
    return LUNA_OK;
}
