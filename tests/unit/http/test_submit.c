//  POST /decode_and_save over loopback, with a stand-in for the broker.

#include "http/place.h"

//  ---- jobs ---------------------------------------------------------------------------

static void json_job(void **state)
{
    static const char prompt[] =
        "{ \"s\" :18446744073709551615,\n\"f\":1.0, \"f2\":[NaN]}";
    char body[512], id[LUNA_ID_TEXT_BYTES], location[64];
    place p;
    luna_msg_job job;
    (void)state;
    open_default(&p);
    snprintf(body, sizeof body, "{\"vae\":\"flux\",\"prompt\" :  %s , \"odd\":1," ONE "}",
             prompt);
    response r = post_text(&p, "/decode_and_save?affix=A%20b&priority=2",
                           "Content-Type: Application/JSON; charset=utf-8\r\n", body);
    assert_int_equal(r.status, 202);
    luna_packet *packet = job_at(&p, 0, &job);
    json_t *json = json_of(&r);
    luna_id_text(&job.id, id);
    snprintf(location, sizeof location, "/v1/jobs/%s", id);
    assert_header(&r, "Location", location);
    assert_member(json, "job_id", id);
    assert_member(json, "status", "queued");
    assert_int_equal(json_integer_value(json_object_get(json, "position")), 7);
    assert_int_equal(json_integer_value(json_object_get(json, "images")), 1);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(json, "ignored"), 0)), "odd");
    assert_true(luna_text_is(job.vae, "flux"));
    assert_int_equal(job.priority, 2);
    assert_true(luna_text_is(job.inputs.items[0].affix, "A b"));
    assert_int_equal(job.prompt.len, strlen(prompt));
    assert_memory_equal(job.prompt.data, prompt, strlen(prompt));
    assert_int_equal(job.inputs.items[0].latent.len, 8);
    assert_int_not_equal(job.client.byte[0], 0);
    luna_packet_close(&packet);
    json_decref(json);
    free(r.body);
    close_place(&p);
}

static void latent_file_job(void **state)
{
    //  ComfyUI's SaveLatent: format marker, prompt and workflow in the header.
    static const char header[] =
        "{\"latent_format_version_0\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":["
        "0,"
        "0]},\"latent_tensor\":{\"dtype\":\"BF16\",\"shape\":[2,4,1,1],\"data_offsets\":["
        "0,"
        "16]},\"__metadata__\":{\"prompt\":\"{ \\\"seed\\\": 18446744073709551615}\","
        "\"workflow\":\"{\\\"n\\\":1.0}\"}}";
    uint8_t body[sizeof header + 32];
    uint64_t len = sizeof header - 1;
    place p;
    luna_msg_job job;
    (void)state;
    open_default(&p);
    memcpy(body, &len, 8);
    memcpy(body + 8, header, len);
    for (uint8_t i = 0; i < 16; i++) body[8 + len + i] = i;
    response r =
        client_post(p.at, "/decode_and_save?vae=x&format=jpeg&affix=caf%C3%A9",
                    "Content-Type: application/octet-stream\r\n", body, len + 24);
    assert_int_equal(r.status, 202);
    luna_packet *packet = job_at(&p, 0, &job);
    assert_true(luna_text_is(job.vae, "x"));
    assert_true(luna_text_is((luna_text){job.prompt.data, job.prompt.len},
                             "{ \"seed\": 18446744073709551615}"));
    assert_true(
        luna_text_is((luna_text){job.workflow.data, job.workflow.len}, "{\"n\":1.0}"));
    const luna_msg_input *input = &job.inputs.items[0];
    assert_true(luna_text_is(input->dtype, "bfloat16"));
    assert_true(luna_text_is(input->format, "jpeg"));
    assert_true(luna_text_is(input->affix, "caf\xc3\xa9"));
    assert_int_equal(input->shape.at[0], 2);
    assert_int_equal(input->latent.len, 16);
    assert_memory_equal(input->latent.data, body + 8 + len, 16);
    luna_packet_close(&packet);
    free(r.body);
    assert_problem(
        client_post(p.at, "/decode_and_save?tensor=none",
                    "Content-Type: application/x-safetensors\r\n", body, len + 24),
        422, "bad_latent", "latent_tensor");
    assert_problem(client_post(p.at, "/decode_and_save",
                               "Content-Type: application/octet-stream\r\n", body, 100),
                   400, "bad_request", "cut short");
    close_place(&p);
}

static void msgpack_job(void **state)
{
    static const uint8_t latent[8] = {9, 8, 7};
    const luna_msg_input input = {.format = luna_text_of("png"),
                                  .png_compression = 4,
                                  .lossy_quality = 90,
                                  .png_bits = 8,
                                  .subdir = true,
                                  .dtype = luna_text_of("float16"),
                                  .shape = {{1, 4, 1, 1}, 4},
                                  .latent = {latent, 8}};
    const luna_msg_job sent = {.id = known_job,
                               .client = known_job,
                               .created_ms = 123456,
                               .priority = 5,
                               .vae = luna_text_of("v"),
                               .embed_workflow = true,
                               .inputs = {&input, 1}};
    void *body;
    size_t len;
    place p;
    luna_msg_job job;
    (void)state;
    open_default(&p);
    assert_int_equal(luna_msg_pack(LUNA_MSG_JOB, &sent, &body, &len), LUNA_OK);
    const char *type = "Content-Type: application/msgpack\r\n";
    response r = client_post(p.at, "/decode_and_save", type, body, len);
    assert_int_equal(r.status, 202);
    assert_header(&r, "Location", "/v1/jobs/" KNOWN_JOB);
    luna_packet *packet = job_at(&p, 0, &job);
    assert_int_equal(luna_id_compare(&job.id, &known_job), 0);
    assert_int_not_equal(luna_id_compare(&job.client, &known_job), 0);
    assert_int_equal(job.created_ms, 123456);
    assert_memory_equal(job.inputs.items[0].latent.data, latent, 8);
    luna_packet_close(&packet);
    free(r.body);
    assert_problem(client_post(p.at, "/decode_and_save?vae=x", type, body, len), 400,
                   "bad_request", "query string");
    assert_problem(client_post(p.at, "/decode_and_save", type, body, len - 1), 400,
                   "protocol", "");
    assert_problem(client_post(p.at, "/decode_and_save",
                               "Content-Type: application/msgpack\r\nIdempotency-Key: "
                               "11111111-a5b0-7c3d-8e4f-5061728394a5\r\n",
                               body, len),
                   400, "bad_request", "different");
    free(body);
    close_place(&p);
}

static void idempotency_key(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    response r =
        post_text(&p, "/decode_and_save",
                  JSON_TYPE "Idempotency-Key: \"" KNOWN_JOB "\"\r\n", "{" ONE "}");
    assert_int_equal(r.status, 202);
    assert_header(&r, "Location", "/v1/jobs/" KNOWN_JOB);
    free(r.body);
    assert_problem(post_text(&p, "/decode_and_save", JSON_TYPE "Idempotency-Key: 7\r\n",
                             "{" ONE "}"),
                   400, "bad_request", "UUID");
    close_place(&p);
}

static void bad_bodies(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    const char *path = "/decode_and_save";
    assert_problem(post_text(&p, path, JSON_TYPE, "{\n\"a\": ]}"), 400, "bad_request",
                   "line 2, column 6");
    assert_problem(post_text(&p, path, JSON_TYPE, ""), 400, "bad_request", "empty");
    assert_problem(post_text(&p, path, "", "{}"), 415, "unsupported", "Content-Type");
    assert_problem(post_text(&p, path, "Content-Type: text/plain\r\n", "{}"), 415,
                   "unsupported", "text/plain");
    assert_problem(post_text(&p, path, JSON_TYPE "Content-Encoding: gzip\r\n", "{}"), 415,
                   "unsupported", "gzip");
    assert_problem(
        post_text(&p, path, JSON_TYPE,
                  "{\"data\":\"AAAA\",\"dtype\":\"float16\",\"shape\":[1,4,1,1]}"),
        422, "bad_latent", "do not match");
    assert_problem(post_text(&p, "/decode_and_save?priority=x", JSON_TYPE, "{" ONE "}"),
                   400, "bad_request", "priority");
    assert_problem(post_text(&p, path, JSON_TYPE, "{\"priority\":10," ONE "}"), 400,
                   "bad_request", "priority");
    assert_problem(post_text(&p, "/decode_and_save?affix=%FF", JSON_TYPE, "{" ONE "}"),
                   400, "bad_request", "UTF-8");
    assert_int_equal(jobs_sent(&p), 0);
    close_place(&p);
}

static void too_large(void **state)
{
    luna_http_options options = luna_http_options_default();
    place p;
    char body[3000];
    (void)state;
    options.max_body_bytes = 2000;
    open_place(&p, &options);
    memset(body, ' ', sizeof body);
    assert_problem(client_post(p.at, "/decode_and_save", JSON_TYPE, body, sizeof body),
                   413, "too_large", "2000");
    //  Announced beyond what is worth reading: answered at once.
    int fd = client_open(p.at);
    client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Content-Length: 99999999999\r\n\r\n");
    assert_problem(client_read(fd), 413, "too_large", "2000");
    close(fd);
    //  Who asks first is answered first.
    fd = client_open(p.at);
    client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Expect: 100-continue\r\nContent-Length: 3000\r\n\r\n");
    assert_problem(client_read(fd), 413, "too_large", "2000");
    close(fd);
    //  Chunked: noticed while reading.
    fd = client_open(p.at);
    client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        client_print(fd, "5dc\r\n");
        client_write(fd, body, 1500);
        client_print(fd, "\r\n");
    }
    client_print(fd, "0\r\n\r\n");
    assert_problem(client_read(fd), 413, "too_large", "2000");
    close(fd);
    close_place(&p);
}

static void no_room_is_busy(void **state)
{
    luna_http_options options = luna_http_options_default();
    place p;
    (void)state;
    options.max_held_bytes = 30000;
    open_place(&p, &options);
    const int fd = client_open(p.at);
    client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n");
    response r = client_read(fd);
    assert_header(&r, "Retry-After", "1");
    assert_problem(r, 503, "busy", "try again");
    close(fd);
    //  Nothing stays counted: many jobs, one after the other, fit.
    for (int i = 0; i < 200; i++) {
        char body[3000] = "{" ONE "}";
        memset(body + strlen(body), ' ', sizeof body - strlen(body));
        r = client_post(p.at, "/decode_and_save", JSON_TYPE, body, sizeof body);
        assert_int_equal(r.status, 202);
        free(r.body);
    }
    close_place(&p);
}

static void chunked_in_small_pieces(void **state)
{
    static const char body[] = "{\"prompt\":{\"a\":1}," ONE "}";
    place p;
    luna_msg_job job;
    (void)state;
    open_default(&p);
    const int fd = client_open(p.at);
    client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Transfer-Encoding: chunked\r\n\r\n");
    for (size_t i = 0; body[i]; i++) client_print(fd, "1\r\n%c\r\n", body[i]);
    client_print(fd, "0\r\n\r\n");
    response r = client_read(fd);
    assert_int_equal(r.status, 202);
    luna_packet *packet = job_at(&p, 0, &job);
    assert_int_equal(job.prompt.len, 7);
    luna_packet_close(&packet);
    free(r.body);
    close(fd);
    close_place(&p);
}

//  A client that says little holds up nobody; one that goes away leaves nothing.
static void slow_and_vanishing_clients(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    const int slow = client_open(p.at);
    client_print(slow,
                 "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                 "Content-Length: %zu\r\n\r\n{" ONE,
                 strlen("{" ONE "}"));
    for (int i = 0; i < 5; i++) {
        const int fd = client_open(p.at);
        client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                         "Content-Length: 5000\r\n\r\n{");
        close(fd);
    }
    response r = client_get(p.at, "/healthz");
    assert_int_equal(r.status, 200);
    free(r.body);
    client_print(slow, "}");
    r = client_read(slow);
    assert_int_equal(r.status, 202);
    free(r.body);
    close(slow);
    close_place(&p);
}

//  A body that trickles in for ever is cut off when its time is over.
static void endless_upload_is_cut_off(void **state)
{
    luna_http_options options = luna_http_options_default();
    place p;
    (void)state;
    options.upload_ms = 5;
    open_place(&p, &options);
    const int fd = client_open(p.at);
    client_print(fd, "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                     "Transfer-Encoding: chunked\r\n\r\n");
    const int64_t deadline_ms = luna_now_ms() + 30000;
    while (client_print(fd, "1\r\n \r\n")) assert_true(luna_now_ms() < deadline_ms);
    close(fd);
    response r = client_get(p.at, "/healthz");
    assert_int_equal(r.status, 200);
    free(r.body);
    close_place(&p);
}

static void head_is_get_without_a_body(void **state)
{
    place p;
    char text[64];
    (void)state;
    open_default(&p);
    const int fd = client_open(p.at);
    client_print(
        fd, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    size_t got = 0;
    ssize_t n;
    char all[2048] = "";
    while ((n = recv(fd, all + got, sizeof all - 1 - got, 0)) > 0) got += (size_t)n;
    memcpy(text, all, 15);
    text[15] = '\0';
    assert_string_equal(text, "HTTP/1.1 200 OK");
    assert_memory_equal(all + got - 4, "\r\n\r\n", 4);
    close(fd);
    close_place(&p);
}

static void half_closed_client_gets_its_answer(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    const int fd = client_open(p.at);
    client_print(fd,
                 "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                 "Content-Length: %zu\r\n\r\n{" ONE "}",
                 strlen("{" ONE "}"));
    shutdown(fd, SHUT_WR);
    response r = client_read(fd);
    assert_int_equal(r.status, 202);
    free(r.body);
    close(fd);
    close_place(&p);
}

//  ---- the broker's side ----------------------------------------------------------

static void busy_and_refused(void **state)
{
    place p;
    (void)state;
    open_default(&p);
    stand_in_set(&p.broker, SAY_BUSY);
    response r = post_text(&p, "/decode_and_save", JSON_TYPE, "{" ONE "}");
    assert_header(&r, "Retry-After", "3");
    assert_problem(r, 503, "busy", "queue is full");
    stand_in_set(&p.broker, REFUSE);
    assert_problem(post_text(&p, "/decode_and_save", JSON_TYPE, "{" ONE "}"), 422,
                   "unknown_vae", "no VAE");
    close_place(&p);
}

static void a_silent_broker_is_504(void **state)
{
    luna_http_options options = luna_http_options_default();
    place p;
    (void)state;
    options.answer_ms = 50;
    open_place(&p, &options);
    stand_in_set(&p.broker, SILENT);
    response r = post_text(&p, "/decode_and_save",
                           JSON_TYPE "Idempotency-Key: " KNOWN_JOB "\r\n", "{" ONE "}");
    json_t *json = json_of(&r);
    assert_member(json, "job_id", KNOWN_JOB);
    json_decref(json);
    assert_problem(r, 504, "timeout", "same id");
    assert_problem(client_get(p.at, "/queue_status"), 504, "timeout", "no answer");
    r = client_get(p.at, "/healthz");
    assert_int_equal(r.status, 200);
    free(r.body);
    stand_in_set(&p.broker, ACCEPT);
    r = post_text(&p, "/decode_and_save", JSON_TYPE "Idempotency-Key: " KNOWN_JOB "\r\n",
                  "{" ONE "}");
    assert_int_equal(r.status, 202);
    free(r.body);
    close_place(&p);
}

static void stop_answers_who_waits(void **state)
{
    place p;
    luna_msg_job job;
    (void)state;
    open_default(&p);
    stand_in_set(&p.broker, SILENT);
    const int fd = client_open(p.at);
    client_print(fd,
                 "POST /decode_and_save HTTP/1.1\r\nHost: localhost\r\n" JSON_TYPE
                 "Content-Length: %zu\r\n\r\n{" ONE "}",
                 strlen("{" ONE "}"));
    luna_packet *packet = job_at(&p, 0, &job);  //  so it waits for the receipt now
    luna_packet_close(&packet);
    luna_http_stop(&p.http);
    assert_problem(client_read(fd), 503, "unavailable", "stopping");
    close(fd);
    stand_in_stop(&p.broker);
}

//  Messages the broker has not read outlive the shim.
static void stop_with_unread_messages(void **state)
{
    luna_http_options options = luna_http_options_default();
    place p;
    (void)state;
    options.answer_ms = 20;
    open_place(&p, &options);
    stand_in_set(&p.broker, PAUSED);
    assert_problem(post_text(&p, "/decode_and_save", JSON_TYPE, "{" ONE "}"), 504,
                   "timeout", "");
    close_place(&p);
}

#define CLIENTS 50

typedef struct one_client {
    const char *at;
    int number;
    int status;
    pthread_t thread;
} one_client;

static void *submit_one(void *context)
{
    one_client *c = context;
    char body[256];
    const int n = snprintf(body, sizeof body, "{\"affix\":\"c%d\"," ONE "}", c->number);
    const response r = client_post(c->at, "/decode_and_save", JSON_TYPE, body, (size_t)n);
    c->status = r.status;
    free(r.body);
    return NULL;
}

static void fifty_clients_at_once(void **state)
{
    one_client clients[CLIENTS];
    bool seen[CLIENTS] = {false};
    place p;
    (void)state;
    open_default(&p);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (one_client){.at = p.at, .number = i};
        assert_int_equal(
            pthread_create(&clients[i].thread, NULL, submit_one, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(clients[i].thread, NULL);
    for (int i = 0; i < CLIENTS; i++) assert_int_equal(clients[i].status, 202);
    for (size_t i = 0; i < CLIENTS; i++) {
        luna_msg_job job;
        char affix[16];
        luna_packet *packet = job_at(&p, i, &job);
        luna_text_copy(job.inputs.items[0].affix, affix, sizeof affix);
        seen[atoi(affix + 1)] = true;
        luna_packet_close(&packet);
    }
    for (int i = 0; i < CLIENTS; i++) assert_true(seen[i]);
    close_place(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_job),
        cmocka_unit_test(latent_file_job),
        cmocka_unit_test(msgpack_job),
        cmocka_unit_test(idempotency_key),
        cmocka_unit_test(bad_bodies),
        cmocka_unit_test(too_large),
        cmocka_unit_test(no_room_is_busy),
        cmocka_unit_test(chunked_in_small_pieces),
        cmocka_unit_test(slow_and_vanishing_clients),
        cmocka_unit_test(endless_upload_is_cut_off),
        cmocka_unit_test(head_is_get_without_a_body),
        cmocka_unit_test(half_closed_client_gets_its_answer),
        cmocka_unit_test(busy_and_refused),
        cmocka_unit_test(a_silent_broker_is_504),
        cmocka_unit_test(stop_answers_who_waits),
        cmocka_unit_test(stop_with_unread_messages),
        cmocka_unit_test(fifty_clients_at_once),
    };
    luna_log_start("test_http", LUNA_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
