#include "broker/http/route.h"

#include "broker/http/reply.h"

#include <stdio.h>
#include <string.h>

static luna_err run_health(luna_exchange *x)
{
    luna_reply_json(x, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"), NULL);
    return LUNA_OK;
}

static luna_err run_version(luna_exchange *x)
{
    json_t *body = json_pack("{s:s, s:s, s:i}", "name", "luna-broker", "version",
                             x->core->version, "wire", LUNA_WIRE_VERSION);
    luna_reply_json(x, MHD_HTTP_OK, body, NULL);
    return LUNA_OK;
}

//  The Diffusion Toolkit's watcher has this route, by default on the same port.
static luna_err run_process_image(luna_exchange *x)
{
    (void)x;
    return luna_error(LUNA_NOT_FOUND,
                      "this is Luna, not the Diffusion Toolkit's watcher, which serves "
                      "/process_image elsewhere: give Luna and the watcher different "
                      "addresses");
}

static const luna_route routes[] = {
    {"POST", "/decode_and_save", true, luna_route_submit},
    {"GET", "/queue_status", false, luna_route_queue_status},
    {"GET", "/v1/jobs", false, luna_route_jobs},
    {"GET", "/v1/jobs/*", false, luna_route_job},
    {"POST", "/v1/jobs/*/cancel", false, luna_route_cancel},
    {"POST", "/v1/jobs/*/retry", false, luna_route_retry},
    {"GET", "/healthz", false, run_health},
    {"GET", "/readyz", false, luna_route_ready},
    {"GET", "/metrics", false, luna_route_metrics},
    {"GET", "/version", false, run_version},
    {"GET", "/process_image", false, run_process_image},
    {"POST", "/process_image", false, run_process_image},
};

//  Compares with a pattern; what stands for '*' must be a job id.
static bool path_is(const char *pattern, const char *url, luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    const char *star = strchr(pattern, '*');
    if (!star) return strcmp(pattern, url) == 0;
    const size_t before = (size_t)(star - pattern);
    if (strncmp(pattern, url, before) != 0) return false;
    if (strlen(url) < before + sizeof text - 1) return false;
    memcpy(text, url + before, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    return luna_id_parse(text, id) == LUNA_OK &&
           strcmp(star + 1, url + before + sizeof text - 1) == 0;
}

static bool method_is(const luna_route *route, const char *method)
{
    if (strcmp(route->method, method) == 0) return true;
    return strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0;
}

static void no_route(luna_exchange *x, const char *url)
{
    char detail[256];
    snprintf(detail, sizeof detail, "there is no %.120s here", url);
    luna_problem_note_status(&x->problem, MHD_HTTP_NOT_FOUND, LUNA_NOT_FOUND, detail);
}

static void wrong_method(luna_exchange *x, const char *url, const char *allow)
{
    char detail[256];
    snprintf(detail, sizeof detail, "%.120s takes %s only", url, allow);
    snprintf(x->problem.allow, sizeof x->problem.allow, "%s", allow);
    luna_problem_note_status(&x->problem, MHD_HTTP_METHOD_NOT_ALLOWED, LUNA_UNSUPPORTED,
                             detail);
}

void luna_route_find(luna_exchange *x, const char *url, const char *method)
{
    const char *allow = NULL;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const luna_route *route = &routes[i];
        if (!path_is(route->path, url, &x->id)) continue;
        if (method_is(route, method)) {
            x->route = route;
            return;
        }
        allow = strcmp(route->method, "GET") == 0 ? "GET, HEAD" : route->method;
    }
    if (allow)
        wrong_method(x, url, allow);
    else
        no_route(x, url);
}
