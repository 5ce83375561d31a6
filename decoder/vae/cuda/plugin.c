//  The plugin's side: what Luna's programs have once for the whole process, the thread's
//  last error and the log, is theirs; this library has none of its own.

#include "decoder/vae/plugin.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_ROOM = 1024 };

static const luna_plugin_host *host;

luna_err luna_error(luna_err err, const char *format, ...)
{
    char text[TEXT_ROOM];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return host->error(err, "%s", text);
}

luna_err luna_error_errno(luna_err err, const char *format, ...)
{
    char text[TEXT_ROOM];
    const int number = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return host->error(err, "%s: %s", text, strerror(number));
}

const char *luna_error_text(void)
{
    return host->error_text();
}

void luna_log(luna_log_level level, const char *event, const char *format, ...)
{
    char text[TEXT_ROOM];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    host->log(level, event, "%s", text);
}

//  The only name that this library shows.
__attribute__((visibility("default"))) luna_plugin_enter_fn luna_plugin_enter;

const luna_backend *luna_plugin_enter(const luna_plugin_host *from)
{
    if (from->version != LUNA_PLUGIN_VERSION ||
        from->backend_bytes != sizeof(luna_backend) ||
        from->graph_bytes != sizeof(luna_graph))
        return NULL;
    host = from;
    return &luna_backend_cuda;
}
