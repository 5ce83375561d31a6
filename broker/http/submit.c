//  POST /decode_and_save: a body becomes a job, the broker's receipt the answer.

#include "broker/http/draft.h"
#include "broker/http/reply.h"
#include "broker/http/route.h"
#include "broker/http/value.h"
#include "proto/job.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef enum body_kind { BODY_JSON, BODY_SAFETENSORS, BODY_MSGPACK } body_kind;

//  Parameters such as a charset are passed over.
static luna_err kind_of_body(const luna_exchange *x, body_kind *out)
{
    static const struct {
        const char *type;
        body_kind kind;
    } types[] = {{"application/json", BODY_JSON},
                 {"application/octet-stream", BODY_SAFETENSORS},
                 {"application/x-safetensors", BODY_SAFETENSORS},
                 {"application/msgpack", BODY_MSGPACK},
                 {"application/x-msgpack", BODY_MSGPACK}};
    const char *given = luna_exchange_header(x, MHD_HTTP_HEADER_CONTENT_TYPE);
    const size_t len = given ? strcspn(given, "; \t") : 0;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strlen(types[i].type) != len) continue;
        if (strncasecmp(given, types[i].type, len) != 0) continue;
        *out = types[i].kind;
        return LUNA_OK;
    }
    return luna_error(LUNA_UNSUPPORTED,
                      "Content-Type must be application/json, application/octet-stream "
                      "(a .latent or safetensors file) or application/msgpack, not %.60s",
                      given ? given : "absent");
}

typedef struct query_reader {
    luna_draft *draft;
    luna_err err;
    size_t count;
} query_reader;

static enum MHD_Result take_argument(void *context, enum MHD_ValueKind kind,
                                     const char *key, size_t key_len, const char *value,
                                     size_t value_len)
{
    (void)kind;
    query_reader *reader = context;
    const luna_text name = {.data = key, .len = key_len};
    const luna_text text = {.data = value ? value : "", .len = value ? value_len : 0};
    reader->count++;
    reader->err = luna_draft_query(reader->draft, name, text);
    return reader->err == LUNA_OK ? MHD_YES : MHD_NO;
}

static luna_err take_query(luna_exchange *x, body_kind kind, luna_draft *draft)
{
    query_reader reader = {.draft = draft};
    MHD_get_connection_values_n(x->connection, MHD_GET_ARGUMENT_KIND, take_argument,
                                &reader);
    if (kind == BODY_MSGPACK && reader.count > 0)
        return luna_error(LUNA_BAD_REQUEST,
                          "a msgpack job has its settings in itself; leave the query "
                          "string empty");
    return reader.err;
}

static luna_err take_body(luna_exchange *x, body_kind kind, luna_draft *draft)
{
    char *data = x->body.data;
    const size_t len = x->body.len;
    if (len == 0) return luna_error(LUNA_BAD_REQUEST, "the body is empty");
    if (kind == BODY_JSON) return luna_draft_json(draft, data, len);
    if (kind == BODY_MSGPACK) return luna_draft_msgpack(draft, data, len);
    return luna_draft_latent_file(draft, data, len);
}

static luna_err read_key(const luna_exchange *x, luna_id *out)
{
    const char *text = luna_exchange_header(x, "Idempotency-Key");
    *out = (luna_id){0};
    return text ? luna_http_id("Idempotency-Key", luna_text_of(text), out) : LUNA_OK;
}

static void keep_ignored(luna_exchange *x, const luna_draft *draft)
{
    if (draft->ignored_count == 0) return;
    x->kept = json_array();
    for (size_t i = 0; i < draft->ignored_count; i++)
        json_array_append_new(
            x->kept, json_stringn(draft->ignored[i].data, draft->ignored[i].len));
}

static luna_err build(luna_exchange *x, luna_draft *draft)
{
    body_kind kind = BODY_JSON;
    luna_id key;
    const luna_id client = luna_bridge_client(x->core->bridge);
    LUNA_TRY(kind_of_body(x, &kind));
    LUNA_TRY(read_key(x, &key));
    LUNA_TRY(take_query(x, kind, draft));
    LUNA_TRY(take_body(x, kind, draft));
    LUNA_TRY(luna_draft_finish(draft, &client, &key));
    keep_ignored(x, draft);
    return luna_exchange_ask(x, LUNA_MSG_JOB, &draft->job, 0, &draft->job.id);
}

static luna_err send_job(luna_exchange *x)
{
    luna_draft draft;
    luna_draft_init(&draft);
    const luna_err err = build(x, &draft);
    luna_draft_free(&draft);
    luna_body_free(&x->body);  //  the message has its own copy
    return err;
}

//  ---- the receipt -----------------------------------------------------------------

static luna_err refused(luna_exchange *x, const luna_msg_receipt *receipt)
{
    char name[40];
    luna_text_copy(receipt->error, name, sizeof name);
    luna_err err =
        luna_text_is(receipt->status, "busy") ? LUNA_BUSY : luna_err_from_name(name);
    if (err == LUNA_OK) err = LUNA_INTERNAL;
    x->problem.job = receipt->id;
    x->problem.retry_s = receipt->retry_ms / 1000 + (receipt->retry_ms % 1000 != 0);
    const int len = (int)(receipt->detail.len < 1000 ? receipt->detail.len : 1000);
    return luna_error(err, "%.*s", len, receipt->detail.data ? receipt->detail.data : "");
}

static luna_err reply_receipt(luna_exchange *x)
{
    char id[LUNA_ID_TEXT_BYTES], location[64];
    luna_msg_receipt receipt;
    LUNA_TRY(luna_packet_read(x->ask.answer, &receipt));
    if (!luna_text_is(receipt.status, "accepted")) return refused(x, &receipt);
    luna_id_text(&receipt.id, id);
    snprintf(location, sizeof location, "/v1/jobs/%s", id);
    json_t *body =
        json_pack("{s:s, s:s, s:I, s:I}", "job_id", id, "status", "queued", "position",
                  (json_int_t)receipt.position, "images", (json_int_t)receipt.images);
    if (receipt.duplicate) json_object_set_new(body, "duplicate", json_true());
    if (x->kept) json_object_set(body, "ignored", x->kept);
    luna_reply_json(x, MHD_HTTP_ACCEPTED, body, location);
    return LUNA_OK;
}

luna_err luna_route_submit(luna_exchange *x)
{
    return x->step == 0 ? send_job(x) : reply_receipt(x);
}
