#include "broker/http/guard.h"

#include "broker/http/listen.h"
#include "broker/http/reply.h"

#include <string.h>
#include <strings.h>

//  Takes the same time for any guess of the right length.
static bool same_secret(const char *a, const char *b)
{
    const size_t len = strlen(a);
    unsigned char differ = 0;
    if (strlen(b) != len) return false;
    for (size_t i = 0; i < len; i++) differ |= (unsigned char)(a[i] ^ b[i]);
    return differ == 0;
}

static bool has_token(const luna_exchange *x)
{
    const char *given = luna_exchange_header(x, "Authorization");
    if (!given || strncasecmp(given, "Bearer ", 7) != 0) return false;
    return same_secret(given + 7, x->core->token);
}

static bool from_loopback(const luna_exchange *x)
{
    const char *host = luna_exchange_header(x, "Host");
    const char *origin = luna_exchange_header(x, "Origin");
    //  HTTP/1.0 has no Host; every browser sends one.
    if (host && !luna_host_is_loopback(host)) return false;
    if (!origin) return true;
    const char *at = strstr(origin, "://");
    return at && luna_host_is_loopback(at + 3);
}

void luna_guard(luna_exchange *x, const char *url)
{
    if (x->core->token && strcmp(url, "/healthz") != 0 && !has_token(x))
        luna_problem_note_status(&x->problem, MHD_HTTP_UNAUTHORIZED, LUNA_FORBIDDEN,
                                 "this address wants Authorization: Bearer TOKEN");
    if (x->core->check_host && !from_loopback(x))
        luna_problem_note_status(
            &x->problem, MHD_HTTP_FORBIDDEN, LUNA_FORBIDDEN,
            "Host and Origin must name this machine: localhost, 127.0.0.1 or [::1]");
}
