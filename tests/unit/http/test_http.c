//  Every other route, and who may ask, over loopback with a stand-in for the broker.

#include "http/place.h"

//  ---- questions ------------------------------------------------------------------

static json_int_t number_of(json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

static void queue_status(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    response r = client_get(p.at, "/queue_status");
    assert_int_equal(r.status, 200);
    assert_header(&r, "Content-Type", "application/json");
    json_t *json = json_of(&r);
    assert_int_equal(number_of(json, "queue_length"), 3);
    assert_int_equal(number_of(json, "in_progress"), 1);
    assert_int_equal(number_of(json, "completed"), 12);
    assert_int_equal(number_of(json, "failed"), 2);
    assert_int_equal(number_of(json, "cancelled"), 4);
    assert_int_equal(number_of(json, "oldest_age_ms"), 4500);
    json_t *decoder = json_array_get(json_object_get(json, "decoders"), 0);
    assert_member(decoder, "name", "gpu1");
    assert_int_equal(number_of(decoder, "jobs_done"), 9);
    char *formats = json_dumps(json_object_get(decoder, "formats"), JSON_COMPACT);
    assert_string_equal(formats, "[\"png\",\"webp\",\"jxl\"]");
    free(formats);
    json_decref(json);
    free(r.body);
    close_place(&p);
}

static void jobs_and_orders(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    response r = client_get(p.at, "/v1/jobs/" KNOWN_JOB);
    json_t *json = json_of(&r);
    assert_int_equal(r.status, 200);
    assert_member(json, "job_id", KNOWN_JOB);
    assert_member(json, "state", "completed");
    assert_member(json_array_get(json_object_get(json, "files"), 0), "path",
                  "/out/caf\xc3\xa9.png");
    json_decref(json);
    free(r.body);
    assert_problem(client_get(p.at, "/v1/jobs/00000000-a5b0-7c3d-8e4f-5061728394a5"), 404,
                   "not_found", "no such job");
    r = client_get(p.at, "/v1/jobs?state=failed&limit=5");
    json = json_of(&r);
    assert_int_equal(json_array_size(json_object_get(json, "jobs")), 1);
    json_decref(json);
    free(r.body);
    assert_string_equal(p.broker.query_what, "jobs");
    assert_string_equal(p.broker.query_state, "failed");
    assert_int_equal(p.broker.query.limit, 5);
    assert_problem(client_get(p.at, "/v1/jobs?state=x"), 400, "bad_request", "state");
    assert_problem(client_get(p.at, "/v1/jobs?limit=0"), 400, "bad_request", "limit");
    r = post_text(&p, "/v1/jobs/" KNOWN_JOB "/cancel", "", "");
    assert_int_equal(r.status, 200);
    free(r.body);
    assert_int_equal(p.broker.order, LUNA_MSG_CANCEL);
    r = post_text(&p, "/v1/jobs/" KNOWN_JOB "/retry", JSON_TYPE, "{}");
    assert_int_equal(r.status, 200);
    free(r.body);
    assert_int_equal(p.broker.order, LUNA_MSG_RETRY);
    assert_problem(
        post_text(&p, "/v1/jobs/00000000-a5b0-7c3d-8e4f-5061728394a5/cancel", "", ""),
        404, "not_found", "no such job");
    close_place(&p);
}

//  The broker may answer in any order.
static void answers_reach_who_asked(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    stand_in_set(&p.broker, SWAP);
    const int first = client_open(p.at);
    client_print(first, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    pthread_mutex_lock(&p.broker.lock);
    while (!p.broker.held_to) pthread_cond_wait(&p.broker.more, &p.broker.lock);
    pthread_mutex_unlock(&p.broker.lock);
    response r = client_get(p.at, "/v1/jobs");
    json_t *json = json_of(&r);
    assert_int_equal(json_array_size(json_object_get(json, "jobs")), 1);
    json_decref(json);
    free(r.body);
    r = client_read(first);
    assert_int_equal(r.status, 200);
    free(r.body);
    close(first);
    close_place(&p);
}

static void health_ready_version(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    response r = client_get(p.at, "/version");
    json_t *json = json_of(&r);
    assert_member(json, "version", "9.8.7");
    json_decref(json);
    free(r.body);
    r = client_get(p.at, "/metrics");
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "luna_x 1\n");
    free(r.body);
    r = client_get(p.at, "/readyz");
    assert_int_equal(r.status, 200);
    free(r.body);
    p.broker.no_decoders = 1;
    assert_problem(client_get(p.at, "/readyz"), 503, "unavailable", "decoder");
    stand_in_set(&p.broker, PAUSED);
    r = client_get(p.at, "/healthz");  //  asks nobody
    assert_int_equal(r.status, 200);
    free(r.body);
    close_place(&p);
}

static void unknown_routes_and_methods(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    assert_problem(client_get(p.at, "/nothing"), 404, "not_found", "/nothing");
    assert_problem(client_get(p.at, "/v1/jobs/7"), 404, "not_found", "");
    assert_problem(client_get(p.at, "/v1/jobs/" KNOWN_JOB "/x"), 404, "not_found", "");
    response r = client_get(p.at, "/decode_and_save");
    assert_header(&r, "Allow", "POST");
    assert_problem(r, 405, "unsupported", "POST");
    r = post_text(&p, "/queue_status", JSON_TYPE, "{}");
    assert_header(&r, "Allow", "GET, HEAD");
    assert_problem(r, 405, "unsupported", "GET");
    assert_problem(post_text(&p, "/process_image", JSON_TYPE, "{\"Id\":1}"), 404,
                   "not_found", "watcher");
    close_place(&p);
}

static int status_of(place *p, const char *headers)
{
    const int fd = client_open(p->at);
    client_print(fd, "GET /version HTTP/1.1\r\n%s\r\n", headers);
    const response r = client_read(fd);
    free(r.body);
    close(fd);
    return r.status;
}

static void host_and_origin(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    assert_int_equal(status_of(&p, "Host: localhost:1\r\n"), 200);
    assert_int_equal(status_of(&p, "Host: [::1]\r\n"), 200);
    assert_int_equal(status_of(&p, "Host: evil.example\r\n"), 403);
    assert_int_equal(status_of(&p, "Host: localhost.evil.example:80\r\n"), 403);
    assert_int_equal(
        status_of(&p, "Host: localhost\r\nOrigin: http://localhost:8188\r\n"), 200);
    assert_int_equal(status_of(&p, "Host: localhost\r\nOrigin: https://evil\r\n"), 403);
    assert_int_equal(status_of(&p, "Host: localhost\r\nOrigin: null\r\n"), 403);
    close_place(&p);
}

static void token(void **state)
{
    luna_http_options options = luna_http_options_default();
    place p;
    (void)state;
    options.token = "s3cret";
    open_place(&p, &options);
    assert_int_equal(status_of(&p, "Host: gpu-box\r\n"), 401);
    assert_int_equal(status_of(&p, "Host: gpu-box\r\nAuthorization: Bearer s3cres\r\n"),
                     401);
    assert_int_equal(status_of(&p, "Host: gpu-box\r\nAuthorization: Bearer s3cret\r\n"),
                     200);
    response r = client_get(p.at, "/healthz");
    assert_int_equal(r.status, 200);
    free(r.body);
    close_place(&p);
}

static luna_err start_on(const char *address, const char *secret)
{
    luna_http_options options = luna_http_options_default();
    luna_http *http = NULL;
    options.listen = address;
    options.token = secret;
    const luna_err err = luna_http_start(&options, &http);
    luna_http_stop(&http);
    return err;
}

static void addresses(void **state)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "127.0.0.1",
                                      ":80",
                                      "127.0.0.1:",
                                      "::1:80",
                                      "[::1]80",
                                      "127.0.0.1:65536",
                                      "host.example:80"};
    place p;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(start_on(bad[i], NULL), LUNA_CONFIG);
    assert_int_equal(start_on("0.0.0.0:0", NULL), LUNA_CONFIG);
    assert_non_null(strstr(luna_error_text(), "token"));
    assert_int_equal(start_on("0.0.0.0:0", "secret"), LUNA_OK);
    assert_int_equal(start_on("localhost:0", NULL), LUNA_OK);
    open_default(&p);
    assert_int_equal(start_on(p.at, NULL), LUNA_UNAVAILABLE);
    assert_non_null(strstr(luna_error_text(), "in use"));
    close_place(&p);
}

static void keep_alive_serves_many(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    const int fd = client_open(p.at);
    for (int i = 0; i < 20; i++) {
        client_print(fd,
                     "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Content-Length: %zu\r\n\r\n{" ONE "}",
                     strlen("{" ONE "}"));
        const response r = client_read(fd);
        assert_int_equal(r.status, 202);
        free(r.body);
    }
    close(fd);
    assert_int_equal(jobs_sent(&p), 20);
    close_place(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_status),
        cmocka_unit_test(jobs_and_orders),
        cmocka_unit_test(answers_reach_who_asked),
        cmocka_unit_test(health_ready_version),
        cmocka_unit_test(unknown_routes_and_methods),
        cmocka_unit_test(host_and_origin),
        cmocka_unit_test(token),
        cmocka_unit_test(addresses),
        cmocka_unit_test(keep_alive_serves_many),
    };
    luna_log_start("test_http", LUNA_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
