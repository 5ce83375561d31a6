#include "decoder/worker/work.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "proto/codec.h"
#include "proto/job.h"
#include "proto/payload.h"

struct luna_work {
    luna_received message;
    luna_packet *packet;   //  of the work message
    luna_msg_work fields;  //  texts and lists are gone after unload
    luna_map map;          //  the payload file, when it came as a path
    luna_packet *job_packet;
    luna_msg_job job;
};

static luna_err read_fields(luna_work *work)
{
    LUNA_TRY(luna_packet_open(work->message.data, work->message.len, &work->packet));
    if (luna_packet_type(work->packet) != LUNA_MSG_WORK)
        return luna_error(LUNA_PROTOCOL, "a slot carries work messages only");
    return luna_packet_read(work->packet, &work->fields);
}

luna_err luna_work_open(luna_received message, luna_work **out)
{
    luna_work *work = calloc(1, sizeof *work);
    if (!work) {
        message.free(message.handle);
        return luna_error(LUNA_NO_MEMORY, "no memory for a work message");
    }
    work->message = message;
    const luna_err err = read_fields(work);
    if (err != LUNA_OK) {
        luna_work_close(&work);
        return err;
    }
    *out = work;
    return LUNA_OK;
}

void luna_work_close(luna_work **work)
{
    if (!*work) return;
    luna_work_unload(*work);
    free(*work);
    *work = NULL;
}

const luna_msg_work *luna_work_message(const luna_work *work)
{
    return &work->fields;
}

const luna_msg_job *luna_work_job(const luna_work *work)
{
    return &work->job;
}

static luna_err payload_bytes(luna_work *work, luna_blob *out)
{
    const luna_msg_work *fields = &work->fields;
    if (fields->payload.data) {
        *out = fields->payload;
        return LUNA_OK;
    }
    char path[LUNA_MAX_PATH_BYTES + 1];
    luna_text_copy(fields->payload_path, path, sizeof path);
    if (path[0] != '/')
        return luna_error(LUNA_PROTOCOL, "the work has neither payload nor its path");
    const luna_err err = luna_map_open(path, &work->map);
    if (err != LUNA_OK)
        return luna_error(LUNA_IO, "%s; is the spool mounted here?", luna_error_text());
    *out = (luna_blob){work->map.data, work->map.len};
    return LUNA_OK;
}

static luna_err check_id(const luna_work *work, const luna_id *id, const char *where)
{
    if (luna_id_compare(&work->fields.id, id) == 0) return LUNA_OK;
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    return luna_error(LUNA_PROTOCOL, "the payload's %s names another job, %s", where,
                      text);
}

luna_err luna_work_load(luna_work *work)
{
    luna_blob bytes;
    luna_payload payload;
    LUNA_TRY(payload_bytes(work, &bytes));
    LUNA_TRY(luna_payload_open(bytes.data, bytes.len, &payload));
    LUNA_TRY(check_id(work, &payload.id, "header"));
    LUNA_TRY(luna_payload_verify(&payload));
    LUNA_TRY(luna_packet_open(payload.body.data, payload.body.len, &work->job_packet));
    if (luna_packet_type(work->job_packet) != LUNA_MSG_JOB)
        return luna_error(LUNA_PROTOCOL, "the payload is not a job message");
    LUNA_TRY(luna_packet_read(work->job_packet, &work->job));
    LUNA_TRY(check_id(work, &work->job.id, "job"));
    return luna_job_check(&work->job);
}

void luna_work_unload(luna_work *work)
{
    luna_packet_close(&work->job_packet);
    luna_packet_close(&work->packet);
    luna_map_close(&work->map);
    if (work->message.handle) work->message.free(work->message.handle);
    work->message = (luna_received){0};
    work->job = (luna_msg_job){0};
    work->fields.payload_path = (luna_text){0};
    work->fields.payload = (luna_blob){0};
    work->fields.done.items = NULL;
    work->fields.done.count = 0;
}
