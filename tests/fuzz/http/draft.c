//  draft.c - any query string and any body as a job
//
//  A draft that is finished is a job that passes the checks; it either is over a limit of
//  the wire or reads back from its message as it was.

#include "broker/http/draft.h"
#include "fuzz/proto/messages.h"
#include "proto/job.h"

typedef enum body { BODY_JSON, BODY_LATENTS, BODY_MSGPACK, BODIES } body;

static void check_finished(luna_draft *draft)
{
    static const luna_id client = {{9}}, none = {{0}}, key = {{1, 2, 3}};
    const bool keyed = luna_id_is_nil(&draft->job.id);
    const luna_err err = luna_draft_finish(draft, &client, keyed ? &key : &none);
    if (err != LUNA_OK) {
        fuzz_check_error(err);
        return;
    }
    CHECK(luna_job_check(&draft->job) == LUNA_OK);
    CHECK(draft->job.inputs.count > 0);
    void *bytes = NULL;
    size_t len;
    if (luna_msg_pack(LUNA_MSG_JOB, &draft->job, &bytes, &len) == LUNA_OK)
        check_reads_back(LUNA_MSG_JOB, &draft->job, bytes, len);
    free(bytes);
}

static luna_err take_query(luna_draft *draft, fuzz_bytes *from)
{
    for (uint64_t count = fuzz_below(from, 4); count > 0; count--) {
        const luna_text name = fuzz_text(from, 24), value = fuzz_text(from, 80);
        LUNA_TRY(luna_draft_query(draft, name, value.data ? value : luna_text_of("")));
    }
    return LUNA_OK;
}

static luna_err take_body(luna_draft *draft, body kind, char *bytes, size_t len)
{
    if (kind == BODY_JSON) return luna_draft_json(draft, bytes, len);
    if (kind == BODY_LATENTS) return luna_draft_latent_file(draft, bytes, len);
    return luna_draft_msgpack(draft, bytes, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    luna_draft draft;
    luna_draft_init(&draft);
    const body kind = (body)fuzz_below(&from, BODIES);
    luna_err err = take_query(&draft, &from);
    const luna_blob rest = fuzz_rest(&from);
    char *bytes = fuzz_copy(rest.data, rest.len);
    if (err == LUNA_OK && rest.len > 0) {
        err = take_body(&draft, kind, bytes, rest.len);
        CHECK(draft.input_count <= LUNA_MAX_INPUTS);
        if (err == LUNA_OK) check_finished(&draft);
    }
    if (err != LUNA_OK) fuzz_check_error(err);
    luna_draft_free(&draft);
    free(bytes);
    return 0;
}
