#include "broker/http/view.h"

#include "proto/formats.h"

static void put_uint(json_t *to, const char *key, uint64_t value)
{
    const uint64_t most = INT64_MAX;
    json_object_set_new(to, key, json_integer((json_int_t)(value < most ? value : most)));
}

static void put_text(json_t *to, const char *key, luna_text text)
{
    if (!text.data) return;
    json_t *value = json_stringn(text.data, text.len);
    json_object_set_new(to, key, value ? value : json_string("(not UTF-8)"));
}

static void put_id(json_t *to, const char *key, const luna_id *id)
{
    char text[LUNA_ID_TEXT_BYTES];
    luna_id_text(id, text);
    json_object_set_new(to, key, json_string(text));
}

//  0 is "not yet".
static void put_time(json_t *to, const char *key, uint64_t ms)
{
    if (ms) put_uint(to, key, ms);
}

json_t *luna_view_status(const luna_msg_status *status)
{
    json_t *to = json_object();
    //  The first names are those of /queue_status, the others the wire's.
    put_uint(to, "queue_length", status->pending);
    put_uint(to, "pending", status->pending);
    put_uint(to, "in_progress", status->in_progress);
    put_uint(to, "completed", status->completed);
    put_uint(to, "failed", status->failed);
    put_uint(to, "cancelled", status->cancelled);
    put_uint(to, "queued_bytes", status->queued_bytes);
    put_uint(to, "oldest_age_ms", status->oldest_ms);
    put_uint(to, "oldest_ms", status->oldest_ms);
    put_uint(to, "decoders_ready", status->decoders);
    put_text(to, "accepting", status->accepting);
    put_text(to, "version", status->version);
    json_object_set_new(to, "paused", json_boolean(status->paused));
    put_uint(to, "images", status->images);
    put_uint(to, "free_bytes", status->free_bytes);
    put_uint(to, "uptime_ms", status->uptime_ms);
    put_text(to, "alarm", status->alarm);
    return to;
}

static json_t *view_image(const luna_msg_image *image)
{
    json_t *to = json_object();
    put_uint(to, "input", image->input);
    put_uint(to, "index", image->index);
    put_text(to, "path", image->path);
    put_uint(to, "bytes", image->bytes);
    put_text(to, "sha256", image->sha256);
    put_uint(to, "width", image->width);
    put_uint(to, "height", image->height);
    json_object_set_new(to, "decode_ms", json_real(image->decode_ms));
    json_object_set_new(to, "encode_ms", json_real(image->encode_ms));
    json_object_set_new(to, "write_ms", json_real(image->write_ms));
    put_text(to, "note", image->note);
    return to;
}

static void put_job_times(json_t *to, const luna_msg_job_info *job)
{
    put_time(to, "created_ms", job->created_ms);
    put_time(to, "accepted_ms", job->accepted_ms);
    put_time(to, "started_ms", job->started_ms);
    put_time(to, "finished_ms", job->finished_ms);
    put_time(to, "deadline_ms", job->deadline_ms);
}

json_t *luna_view_job(const luna_msg_job_info *job)
{
    json_t *to = json_object();
    put_id(to, "job_id", &job->id);
    put_text(to, "state", job->state);
    put_uint(to, "priority", job->priority);
    put_uint(to, "position", job->position);
    put_uint(to, "images", job->images);
    put_uint(to, "images_done", job->images_done);
    put_uint(to, "bytes", job->bytes);
    put_uint(to, "attempts", job->attempts);
    put_uint(to, "lost", job->lost);
    put_uint(to, "refused", job->refused);
    put_job_times(to, job);
    put_text(to, "vae", job->vae);
    put_text(to, "vae_name", job->vae_name);
    put_text(to, "vae_path", job->vae_path);
    put_text(to, "vae_sha256", job->vae_sha256);
    put_text(to, "decoder", job->decoder);
    put_text(to, "error", job->error);
    put_text(to, "detail", job->detail);
    json_object_set_new(to, "next", json_boolean(job->next));
    json_t *files = json_array();
    for (size_t i = 0; i < job->files.count; i++)
        json_array_append_new(files, view_image(&job->files.items[i]));
    json_object_set_new(to, "files", files);
    return to;
}

static json_t *view_formats(luna_text words)
{
    const luna_formats formats = luna_formats_parse(words);
    json_t *to = json_array();
    for (size_t i = 0; i < LUNA_FORMATS_COUNT; i++)
        if (formats >> i & 1)
            json_array_append_new(to, json_string(luna_formats_word(i)));
    return to;
}

json_t *luna_view_decoder(const luna_msg_decoder_info *decoder)
{
    json_t *to = json_object(), *vaes = json_array();
    put_text(to, "name", decoder->name);
    put_text(to, "state", decoder->state);
    put_text(to, "device", decoder->device);
    put_text(to, "version", decoder->version);
    put_text(to, "host", decoder->host);
    put_uint(to, "pid", decoder->pid);
    put_uint(to, "running", decoder->running);
    put_uint(to, "credit_jobs", decoder->credit_jobs);
    put_uint(to, "images_done", decoder->images_done);
    put_uint(to, "jobs_done", decoder->jobs_done);
    put_uint(to, "jobs_failed", decoder->jobs_failed);
    put_uint(to, "seen_ms", decoder->seen_ms);
    put_text(to, "vae", decoder->vae);
    for (size_t i = 0; i < decoder->vaes.count; i++) {
        const luna_text name = decoder->vaes.items[i].name;
        json_array_append_new(vaes, json_stringn(name.data, name.len));
    }
    json_object_set_new(to, "vaes", vaes);
    json_object_set_new(to, "formats", view_formats(decoder->formats));
    return to;
}
