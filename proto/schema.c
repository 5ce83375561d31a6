#include "proto/schema.h"

//  Row makers. REQ rows must be present; OPT rows read as 0 or NULL when absent;
//  DEF rows as the default they name.
#define AT(member) offsetof(ROW, member)
#define REQ(member, kind, limit)                                    \
    {                                                               \
#member, LUNA_KIND_##kind, true, AT(member), limit, 0, NULL \
    }
#define OPT(member, kind, limit)                                     \
    {                                                                \
#member, LUNA_KIND_##kind, false, AT(member), limit, 0, NULL \
    }
#define DEF(member, kind, limit, value)                                  \
    {                                                                    \
#member, LUNA_KIND_##kind, false, AT(member), limit, value, NULL \
    }
#define REQ_LIST(member, limit, rows)                              \
    {                                                              \
#member, LUNA_KIND_LIST, true, AT(member), limit, 0, &rows \
    }
#define OPT_LIST(member, limit, rows)                               \
    {                                                               \
#member, LUNA_KIND_LIST, false, AT(member), limit, 0, &rows \
    }
#define OPT_MAP(member, rows)                                  \
    {                                                          \
#member, LUNA_KIND_MAP, false, AT(member), 1, 0, &rows \
    }
#define SCHEMA(label, type, rows)                               \
    {                                                           \
        label, sizeof(type), rows, sizeof rows / sizeof rows[0] \
    }

#define ANY      UINT64_MAX
#define NAME     LUNA_MAX_NAME_BYTES
#define PATH     LUNA_MAX_PATH_BYTES
#define TEXT_MAX LUNA_MAX_TEXT_BYTES
#define JSON     LUNA_MAX_JSON_BYTES
#define LIST_MAX LUNA_MAX_LIST

#define ROW luna_msg_input
static const luna_field input_fields[] = {
    OPT(affix, TEXT, NAME),           REQ(format, TEXT, 16),
    DEF(png_compression, UINT, 9, 4), DEF(lossy_quality, UINT, 100, 90),
    OPT(lossless_webp, BOOL, 1),      DEF(png_bits, UINT, 16, 8),
    DEF(subdir, BOOL, 1, 1),          REQ(dtype, TEXT, 16),
    REQ(shape, DIMS, 1 << 20),        REQ(latent, BYTES, ANY),
};
#undef ROW
static const luna_schema input_schema = SCHEMA("input", luna_msg_input, input_fields);

#define ROW luna_msg_token
static const luna_field token_fields[] = {
    OPT(text, TEXT, NAME),
    REQ(index, UINT, LUNA_MAX_TOKEN_INDEX),
};
#undef ROW
static const luna_schema token_schema = SCHEMA("token", luna_msg_token, token_fields);

#define ROW luna_msg_heatmaps
static const luna_field heatmaps_fields[] = {
    REQ(prompt, TEXT, 16),
    REQ(variant, TEXT, 16),
    REQ_LIST(tokens, LUNA_MAX_TOKENS, token_schema),
    REQ(shape, DIMS, 1 << 20),
    REQ(maps, BYTES, ANY),
};
#undef ROW
static const luna_schema heatmaps_schema =
    SCHEMA("heatmap_set", luna_msg_heatmaps, heatmaps_fields);

#define ROW luna_msg_job
static const luna_field job_fields[] = {
    REQ(id, ID, 16),
    REQ(client, ID, 16),
    REQ(created_ms, UINT, ANY),
    OPT(utc_offset_min, INT, 1440),
    DEF(priority, UINT, LUNA_PRIORITY_MAX, LUNA_PRIORITY_DEFAULT),
    OPT(deadline_ms, UINT, ANY),
    REQ(vae, TEXT, PATH),
    OPT(output_dir, TEXT, PATH),
    OPT(save_path, TEXT, PATH),
    OPT(filename, TEXT, PATH),
    OPT(model_name, TEXT, PATH),
    OPT(filename_index, UINT, ANY),
    OPT(save_mode, TEXT, 32),
    OPT(quality_gate, TEXT, 32),
    OPT(min_quality, FLOAT, ANY),
    DEF(embed_workflow, BOOL, 1, 1),
    OPT(round_pixels, BOOL, 1),
    OPT(sidecar, BOOL, 1),
    OPT(parameters, BOOL, 1),
    OPT(custom_metadata, TEXT, TEXT_MAX),
    OPT(prompt_id, TEXT, NAME),
    OPT(prompt, BYTES, JSON),
    OPT(workflow, BYTES, JSON),
    OPT(metadata, BYTES, JSON),
    OPT(extra, PAIRS, 64),
    OPT_LIST(heatmaps, LUNA_MAX_HEATMAP_SETS, heatmaps_schema),
    REQ_LIST(inputs, LUNA_MAX_INPUTS, input_schema),
};
#undef ROW

#define ROW luna_msg_receipt
static const luna_field receipt_fields[] = {
    REQ(id, ID, 16),           REQ(status, TEXT, 16),
    OPT(error, TEXT, 32),      OPT(detail, TEXT, TEXT_MAX),
    OPT(retry_ms, UINT, ANY),  OPT(position, UINT, ANY),
    OPT(images, UINT, ANY),    OPT(duplicate, BOOL, 1),
    OPT(offer_first, BOOL, 1),
};
#undef ROW

#define ROW luna_msg_offer
static const luna_field offer_fields[] = {
    REQ(id, ID, 16),
    REQ(client, ID, 16),
    REQ(bytes, UINT, ANY),
    DEF(priority, UINT, LUNA_PRIORITY_MAX, LUNA_PRIORITY_DEFAULT),
};
#undef ROW

#define ROW luna_msg_grant
static const luna_field grant_fields[] = {
    OPT(offer_first, BOOL, 1),
};
#undef ROW

#define ROW luna_msg_image
static const luna_field image_fields[] = {
    REQ(input, UINT, LUNA_MAX_INPUTS - 1),
    REQ(index, UINT, LUNA_MAX_BATCH - 1),
    REQ(path, TEXT, PATH),
    REQ(bytes, UINT, ANY),
    REQ(sha256, TEXT, 64),
    REQ(width, UINT, ANY),
    REQ(height, UINT, ANY),
    OPT(decode_ms, FLOAT, ANY),
    OPT(encode_ms, FLOAT, ANY),
    OPT(write_ms, FLOAT, ANY),
    OPT(note, TEXT, NAME),
};
#undef ROW
static const luna_schema image_schema = SCHEMA("image", luna_msg_image, image_fields);

#define ROW luna_msg_job_key
static const luna_field job_key_fields[] = {
    REQ(id, ID, 16),
    REQ(attempt, UINT, ANY),
};
#undef ROW
static const luna_schema job_key_schema =
    SCHEMA("job_key", luna_msg_job_key, job_key_fields);

#define ROW luna_msg_vae
static const luna_field vae_fields[] = {
    REQ(name, TEXT, PATH),
};
#undef ROW
static const luna_schema vae_schema = SCHEMA("vae", luna_msg_vae, vae_fields);

#define ROW luna_msg_hello
static const luna_field hello_fields[] = {
    REQ(role, TEXT, 16),
    OPT(name, TEXT, NAME),
    REQ(instance, ID, 16),
    OPT(host, TEXT, NAME),
    OPT(pid, UINT, ANY),
    OPT(version, TEXT, 64),
    OPT(device, TEXT, NAME),
    OPT_LIST(vaes, 1000, vae_schema),
    OPT_LIST(running, 1000, job_key_schema),
    OPT(formats, TEXT, NAME),
};
#undef ROW

#define ROW luna_msg_welcome
static const luna_field welcome_fields[] = {
    REQ(epoch, ID, 16),        OPT(version, TEXT, 64),
    OPT(intake, TEXT, PATH),   OPT(events, TEXT, PATH),
    OPT(slot, TEXT, PATH),     OPT(spool_dir, TEXT, PATH),
    OPT(host, TEXT, NAME),     OPT(lease_ms, UINT, ANY),
    REQ(ping_ms, UINT, ANY),   OPT(max_job_bytes, UINT, ANY),
    OPT(offer_first, BOOL, 1),
};
#undef ROW

#define ROW luna_msg_ready
static const luna_field ready_fields[] = {
    REQ(credit_jobs, UINT, 1000),
    REQ(credit_bytes, UINT, ANY),
    OPT(maps_payload, BOOL, 1),
};
#undef ROW

#define ROW luna_msg_ping
static const luna_field ping_fields[] = {
    OPT(running, UINT, ANY),
    OPT(ticks, UINT, ANY),
};
#undef ROW

#define ROW luna_msg_pong
static const luna_field pong_fields[] = {
    REQ(epoch, ID, 16),
    REQ(order, TEXT, 16),
};
#undef ROW

#define ROW luna_msg_bye
static const luna_field bye_fields[] = {
    OPT(reason, TEXT, TEXT_MAX),
};
#undef ROW

#define ROW luna_msg_image_key
static const luna_field image_key_fields[] = {
    REQ(input, UINT, LUNA_MAX_INPUTS - 1),
    REQ(index, UINT, LUNA_MAX_BATCH - 1),
};
#undef ROW
static const luna_schema image_key_schema =
    SCHEMA("image_key", luna_msg_image_key, image_key_fields);

#define ROW luna_msg_work
static const luna_field work_fields[] = {
    REQ(id, ID, 16),
    REQ(attempt, UINT, ANY),
    REQ(epoch, ID, 16),
    REQ(lease_ms, UINT, ANY),
    REQ(payload_bytes, UINT, ANY),
    OPT(payload_path, TEXT, PATH),
    OPT(payload, BYTES, ANY),
    OPT_LIST(done, LIST_MAX, image_key_schema),
};
#undef ROW

#define ROW luna_msg_progress
static const luna_field progress_fields[] = {
    REQ(id, ID, 16),
    REQ(attempt, UINT, ANY),
    REQ(epoch, ID, 16),
    OPT(stage, TEXT, 32),
    OPT_LIST(images, LIST_MAX, image_schema),
};
#undef ROW

#define ROW luna_msg_done
static const luna_field done_fields[] = {
    REQ(id, ID, 16),
    REQ(attempt, UINT, ANY),
    REQ(epoch, ID, 16),
    OPT(vae, TEXT, PATH),
    REQ_LIST(images, LIST_MAX, image_schema),
    OPT(vae_path, TEXT, PATH),
    OPT(vae_sha256, TEXT, 64),
};
#undef ROW

#define ROW luna_msg_failed
static const luna_field failed_fields[] = {
    REQ(id, ID, 16),      REQ(attempt, UINT, ANY),     REQ(epoch, ID, 16),
    REQ(error, TEXT, 32), OPT(detail, TEXT, TEXT_MAX), OPT(retry, BOOL, 1),
};
#undef ROW

#define ROW luna_msg_query
static const luna_field query_fields[] = {
    REQ(re, UINT, ANY),   REQ(what, TEXT, 16),        OPT(id, ID, 16),
    OPT(state, TEXT, 16), OPT(limit, UINT, LIST_MAX),
};
#undef ROW

#define ROW luna_msg_order
static const luna_field order_fields[] = {
    OPT(re, UINT, ANY),
    OPT(id, ID, 16),
    OPT(attempt, UINT, ANY),
    OPT(failed, BOOL, 1),
    DEF(priority, UINT, LUNA_PRIORITY_MAX, LUNA_PRIORITY_DEFAULT),
    OPT(next, BOOL, 1),
    OPT(decoder, TEXT, NAME),
};
#undef ROW

#define ROW luna_msg_status
static const luna_field status_fields[] = {
    OPT(pending, UINT, ANY),        OPT(in_progress, UINT, ANY),
    OPT(completed, UINT, ANY),      OPT(failed, UINT, ANY),
    OPT(cancelled, UINT, ANY),      OPT(queued_bytes, UINT, ANY),
    OPT(oldest_ms, UINT, ANY),      OPT(decoders, UINT, ANY),
    OPT(accepting, TEXT, TEXT_MAX), OPT(version, TEXT, 64),
    OPT(paused, BOOL, 1),           OPT(images, UINT, ANY),
    OPT(free_bytes, UINT, ANY),     OPT(uptime_ms, UINT, ANY),
    OPT(alarm, TEXT, TEXT_MAX),
};
#undef ROW
static const luna_schema status_schema = SCHEMA("status", luna_msg_status, status_fields);

#define ROW luna_msg_job_info
static const luna_field job_info_fields[] = {
    REQ(id, ID, 16),
    REQ(state, TEXT, 16),
    OPT(priority, UINT, LUNA_PRIORITY_MAX),
    OPT(position, UINT, ANY),
    OPT(images, UINT, ANY),
    OPT(images_done, UINT, ANY),
    OPT(bytes, UINT, ANY),
    OPT(attempts, UINT, ANY),
    OPT(lost, UINT, ANY),
    OPT(refused, UINT, ANY),
    OPT(created_ms, UINT, ANY),
    OPT(accepted_ms, UINT, ANY),
    OPT(started_ms, UINT, ANY),
    OPT(finished_ms, UINT, ANY),
    OPT(vae, TEXT, PATH),
    OPT(decoder, TEXT, NAME),
    OPT(error, TEXT, 32),
    OPT(detail, TEXT, TEXT_MAX),
    OPT_LIST(files, LIST_MAX, image_schema),
    OPT(deadline_ms, UINT, ANY),
    OPT(next, BOOL, 1),
    OPT(vae_name, TEXT, PATH),
    OPT(vae_path, TEXT, PATH),
    OPT(vae_sha256, TEXT, 64),
};
#undef ROW
static const luna_schema job_info_schema =
    SCHEMA("job_info", luna_msg_job_info, job_info_fields);

#define ROW luna_msg_decoder_info
static const luna_field decoder_info_fields[] = {
    REQ(name, TEXT, NAME),
    REQ(state, TEXT, 16),
    OPT(device, TEXT, NAME),
    OPT(version, TEXT, 64),
    OPT(host, TEXT, NAME),
    OPT(pid, UINT, ANY),
    OPT(running, UINT, ANY),
    OPT(credit_jobs, UINT, ANY),
    OPT(images_done, UINT, ANY),
    OPT(jobs_done, UINT, ANY),
    OPT(jobs_failed, UINT, ANY),
    OPT(seen_ms, UINT, ANY),
    OPT_LIST(vaes, 1000, vae_schema),
    OPT(vae, TEXT, PATH),
    OPT(formats, TEXT, NAME),
};
#undef ROW
static const luna_schema decoder_info_schema =
    SCHEMA("decoder_info", luna_msg_decoder_info, decoder_info_fields);

#define ROW luna_msg_answer
static const luna_field answer_fields[] = {
    OPT(re, UINT, ANY),
    OPT(error, TEXT, 32),
    OPT(detail, TEXT, TEXT_MAX),
    OPT_MAP(status, status_schema),
    OPT_LIST(jobs, LIST_MAX, job_info_schema),
    OPT_LIST(decoders, 1000, decoder_info_schema),
    OPT(changed, UINT, ANY),
    OPT(text, TEXT, LUNA_MAX_PAGE_BYTES),
};
#undef ROW

#define ROW luna_msg_event
static const luna_field event_fields[] = {
    REQ(epoch, ID, 16),
    REQ(seq, UINT, ANY),
    REQ(time_ms, UINT, ANY),
    REQ(kind, TEXT, 32),
    OPT_MAP(status, status_schema),
    OPT_LIST(jobs, LIST_MAX, job_info_schema),
    OPT_LIST(decoders, 1000, decoder_info_schema),
};
#undef ROW

static const luna_schema schemas[LUNA_MSG_COUNT] = {
    [LUNA_MSG_JOB] = SCHEMA("job", luna_msg_job, job_fields),
    [LUNA_MSG_RECEIPT] = SCHEMA("receipt", luna_msg_receipt, receipt_fields),
    [LUNA_MSG_OFFER] = SCHEMA("offer", luna_msg_offer, offer_fields),
    [LUNA_MSG_GRANT] = SCHEMA("grant", luna_msg_grant, grant_fields),
    [LUNA_MSG_HELLO] = SCHEMA("hello", luna_msg_hello, hello_fields),
    [LUNA_MSG_WELCOME] = SCHEMA("welcome", luna_msg_welcome, welcome_fields),
    [LUNA_MSG_READY] = SCHEMA("ready", luna_msg_ready, ready_fields),
    [LUNA_MSG_CREDIT] = SCHEMA("credit", luna_msg_ready, ready_fields),
    [LUNA_MSG_PING] = SCHEMA("ping", luna_msg_ping, ping_fields),
    [LUNA_MSG_PONG] = SCHEMA("pong", luna_msg_pong, pong_fields),
    [LUNA_MSG_BYE] = SCHEMA("bye", luna_msg_bye, bye_fields),
    [LUNA_MSG_WORK] = SCHEMA("work", luna_msg_work, work_fields),
    [LUNA_MSG_PROGRESS] = SCHEMA("progress", luna_msg_progress, progress_fields),
    [LUNA_MSG_DONE] = SCHEMA("done", luna_msg_done, done_fields),
    [LUNA_MSG_FAILED] = SCHEMA("failed", luna_msg_failed, failed_fields),
    [LUNA_MSG_QUERY] = SCHEMA("query", luna_msg_query, query_fields),
    [LUNA_MSG_CANCEL] = SCHEMA("cancel", luna_msg_order, order_fields),
    [LUNA_MSG_RETRY] = SCHEMA("retry", luna_msg_order, order_fields),
    [LUNA_MSG_PRIORITISE] = SCHEMA("prioritise", luna_msg_order, order_fields),
    [LUNA_MSG_PAUSE] = SCHEMA("pause", luna_msg_order, order_fields),
    [LUNA_MSG_RESUME] = SCHEMA("resume", luna_msg_order, order_fields),
    [LUNA_MSG_DRAIN] = SCHEMA("drain", luna_msg_order, order_fields),
    [LUNA_MSG_ANSWER] = SCHEMA("answer", luna_msg_answer, answer_fields),
    [LUNA_MSG_EVENT] = SCHEMA("event", luna_msg_event, event_fields),
};

static const char *const kind_names[] = {"uint", "int",  "float", "bool", "text", "bytes",
                                         "id",   "dims", "pairs", "list", "map"};

const luna_schema *luna_msg_schema(luna_msg_type type)
{
    return &schemas[type];
}

const char *luna_kind_name(luna_kind kind)
{
    return kind_names[kind];
}
