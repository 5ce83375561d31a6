//  place.h - the shim and a stand-in for its broker, started for one test

#ifndef LUNA_TESTS_PLACE_H
#define LUNA_TESTS_PLACE_H

#include "broker/http/http.h"
#include "common/log.h"
#include "http/client.h"
#include "http/stand_in.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#define JSON_TYPE "Content-Type: application/json\r\n"
#define ONE       "\"data\":\"AAECAwQFBgc=\",\"dtype\":\"float16\",\"shape\":[1,4,1,1]"

typedef struct place {
    stand_in broker;
    luna_http *http;
    const char *at;  //  address
} place;

static inline void open_place(place *p, const luna_http_options *with)
{
    luna_http_options options = *with;
    stand_in_start(&p->broker);
    options.listen = "127.0.0.1:0";
    options.control = p->broker.control;
    options.intake = p->broker.intake;
    options.version = "9.8.7";
    if (luna_http_start(&options, &p->http) != LUNA_OK) fail_msg("%s", luna_error_text());
    p->at = luna_http_address(p->http);
}

static inline void close_place(place *p)
{
    luna_http_stop(&p->http);
    assert_null(p->http);
    stand_in_stop(&p->broker);
}

static inline void open_default(place *p)
{
    const luna_http_options options = luna_http_options_default();
    open_place(p, &options);
}

//  The I-th job the broker got, once it is there.
static inline luna_packet *job_at(place *p, size_t i, luna_msg_job *job)
{
    luna_packet *packet;
    pthread_mutex_lock(&p->broker.lock);
    while (p->broker.count <= i) pthread_cond_wait(&p->broker.more, &p->broker.lock);
    assert_int_equal(
        luna_packet_open(p->broker.jobs[i].bytes, p->broker.jobs[i].len, &packet),
        LUNA_OK);
    pthread_mutex_unlock(&p->broker.lock);
    assert_int_equal(luna_packet_read(packet, job), LUNA_OK);
    return packet;
}

static inline size_t jobs_sent(place *p)
{
    pthread_mutex_lock(&p->broker.lock);
    const size_t count = p->broker.count;
    pthread_mutex_unlock(&p->broker.lock);
    return count;
}

static inline json_t *json_of(const response *r)
{
    json_t *json = json_loadb(r->body, r->len, JSON_REJECT_DUPLICATES, NULL);
    if (!json) fail_msg("not JSON: %s", r->body);
    return json;
}

static inline void assert_member(json_t *json, const char *key, const char *expected)
{
    const char *text = json_string_value(json_object_get(json, key));
    if (!text || strcmp(text, expected) != 0)
        fail_msg("%s is '%s', not '%s'", key, text ? text : "absent", expected);
}

static inline void assert_header(const response *r, const char *name,
                                 const char *expected)
{
    char text[256];
    const char *value = client_header(r, name, text, sizeof text);
    if (!value || strcmp(value, expected) != 0)
        fail_msg("%s is '%s', not '%s'", name, value ? value : "absent", expected);
}

//  A problem with this status, error name and part of its sentence.
static inline void assert_problem(response r, int status, const char *error,
                                  const char *words)
{
    if (r.status != status) fail_msg("%d, not %d: %s", r.status, status, r.body);
    json_t *json = json_of(&r);
    char type[64];
    assert_header(&r, "Content-Type", "application/problem+json");
    assert_member(json, "error", error);
    snprintf(type, sizeof type, "urn:luna:error:%s", error);
    assert_member(json, "type", type);
    assert_int_equal(json_integer_value(json_object_get(json, "status")), status);
    assert_non_null(json_string_value(json_object_get(json, "title")));
    const char *detail = json_string_value(json_object_get(json, "detail"));
    if (!detail || !strstr(detail, words)) fail_msg("'%s' lacks '%s'", detail, words);
    json_decref(json);
    free(r.body);
}

static inline response post_text(place *p, const char *path, const char *headers,
                                 const char *body)
{
    return client_post(p->at, path, headers, body, strlen(body));
}

#endif
