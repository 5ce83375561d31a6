//  What --json prints: the keys are the wire's words, and stay.

#include "producer/lunactl/lunactl.h"

#include <string.h>

static luna_err print(json_t *value, size_t flags)
{
    if (!value) return luna_error(LUNA_NO_MEMORY, "out of memory");
    flags |= JSON_REAL_PRECISION(9);  //  times are in ms
    const bool written = json_dumpf(value, stdout, flags) == 0 && putchar('\n') != EOF;
    json_decref(value);
    return written ? LUNA_OK : luna_error_errno(LUNA_IO, "cannot write the output");
}

luna_err luna_ctl_print_json(json_t *value)
{
    return print(value, JSON_INDENT(2));
}

luna_err luna_ctl_print_json_line(json_t *value)
{
    LUNA_TRY(print(value, JSON_COMPACT));
    return fflush(stdout) == 0 ? LUNA_OK
                               : luna_error_errno(LUNA_IO, "cannot write the output");
}

//  A text that is not UTF-8 has no place in JSON.
static json_t *text(const char *value)
{
    json_t *string = json_string(value);
    return string ? string : json_string("");
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *status_counts(const luna_status *status)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",    //
                     "pending", number(status->pending),            //
                     "in_progress", number(status->in_progress),    //
                     "completed", number(status->completed),        //
                     "failed", number(status->failed),              //
                     "cancelled", number(status->cancelled),        //
                     "queued_bytes", number(status->queued_bytes),  //
                     "oldest_ms", number(status->oldest_ms),        //
                     "decoders", number(status->decoders));
}

json_t *luna_ctl_json_status(const luna_status *status)
{
    json_t *out = status_counts(status);
    json_t *health = json_pack("{s:o, s:o, s:b, s:o, s:o, s:o, s:o}",     //
                               "accepting", text(status->accepting),      //
                               "version", text(status->version),          //
                               "paused", status->paused,                  //
                               "images", number(status->images),          //
                               "free_bytes", number(status->free_bytes),  //
                               "uptime_ms", number(status->uptime_ms),    //
                               "alarm", text(status->alarm));
    json_object_update_new(out, health);
    return out;
}

json_t *luna_ctl_json_image(const luna_image *image)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:o}",  //
                     "input", number(image->input),                              //
                     "index", number(image->index),                              //
                     "path", text(image->path),                                  //
                     "bytes", number(image->bytes),                              //
                     "sha256", text(image->sha256),                              //
                     "width", number(image->width),                              //
                     "height", number(image->height),                            //
                     "decode_ms", image->decode_ms,                              //
                     "encode_ms", image->encode_ms,                              //
                     "write_ms", image->write_ms,                                //
                     "note", text(image->note));
}

static json_t *job_times(const luna_job *job)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}",              //
                     "created_ms", number(job->created_ms),    //
                     "accepted_ms", number(job->accepted_ms),  //
                     "started_ms", number(job->started_ms),    //
                     "finished_ms", number(job->finished_ms),  //
                     "deadline_ms", number(job->deadline_ms));
}

static json_t *job_counts(const luna_job *job)
{
    return json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",  //
                     "priority", number(job->priority),                //
                     "next", job->next,                                //
                     "position", number(job->position),                //
                     "images", number(job->images),                    //
                     "images_done", number(job->images_done),          //
                     "bytes", number(job->bytes),                      //
                     "attempts", number(job->attempts),                //
                     "lost", number(job->lost),                        //
                     "refused", number(job->refused));
}

json_t *luna_ctl_json_job(const luna_job *job)
{
    json_t *files = json_array();
    for (size_t i = 0; i < job->file_count; i++)
        json_array_append_new(files, luna_ctl_json_image(&job->files[i]));
    json_t *out = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",  //
                            "id", text(job->id),                              //
                            "state", text(job->state),                        //
                            "vae", text(job->vae),                            //
                            "vae_name", text(job->vae_name),                  //
                            "vae_path", text(job->vae_path),                  //
                            "vae_sha256", text(job->vae_sha256),              //
                            "decoder", text(job->decoder),                    //
                            "error", text(job->error),                        //
                            "detail", text(job->detail));
    json_object_update_new(out, job_counts(job));
    json_object_update_new(out, job_times(job));
    json_object_set_new(out, "files", files);
    return out;
}

json_t *luna_ctl_json_jobs(const luna_answer *answer)
{
    json_t *list = json_array();
    for (size_t i = 0; i < answer->job_count; i++)
        json_array_append_new(list, luna_ctl_json_job(&answer->jobs[i]));
    return list;
}

static json_t *decoder_counts(const luna_decoder *decoder)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}",        //
                     "pid", number(decoder->pid),                  //
                     "running", number(decoder->running),          //
                     "credit_jobs", number(decoder->credit_jobs),  //
                     "images_done", number(decoder->images_done),  //
                     "jobs_done", number(decoder->jobs_done),      //
                     "jobs_failed", number(decoder->jobs_failed),  //
                     "seen_ms", number(decoder->seen_ms));
}

//  ["a", "b"] of "a b".
static json_t *words(const char *from)
{
    json_t *to = json_array();
    for (size_t len; *from; from += len) {
        len = strcspn(from, " ");
        if (len) json_array_append_new(to, json_stringn(from, len));
        len += from[len] == ' ';
    }
    return to;
}

static json_t *json_decoder(const luna_decoder *decoder)
{
    json_t *vaes = json_array();
    for (size_t i = 0; i < decoder->vae_count; i++)
        json_array_append_new(vaes, text(decoder->vaes[i]));
    json_t *out = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}",   //
                            "name", text(decoder->name),        //
                            "state", text(decoder->state),      //
                            "device", text(decoder->device),    //
                            "version", text(decoder->version),  //
                            "host", text(decoder->host),        //
                            "vae", text(decoder->vae));
    json_object_update_new(out, decoder_counts(decoder));
    json_object_set_new(out, "vaes", vaes);
    json_object_set_new(out, "formats", words(decoder->formats));
    return out;
}

json_t *luna_ctl_json_decoders(const luna_answer *answer)
{
    json_t *list = json_array();
    for (size_t i = 0; i < answer->decoder_count; i++)
        json_array_append_new(list, json_decoder(&answer->decoders[i]));
    return list;
}

json_t *luna_ctl_json_error(luna_err err, const char *id)
{
    json_t *out = json_pack("{s:s, s:o}", "error", luna_err_name(err), "detail",
                            text(luna_error_text()));
    if (id) json_object_set_new(out, "id", text(id));
    return out;
}
