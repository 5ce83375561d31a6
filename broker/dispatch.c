//  dispatch.c - the scheduler's decisions, carried out
//
//  A decision becomes a store operation first and is told to others when that is
//  back.

#include "broker/loop.h"
#include "common/clock.h"
#include "common/log.h"

#include <string.h>

static void log_not_stored(const char *event, const luna_task *task)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    luna_log(LUNA_LOG_ERROR, event, "job=%s err=%s detail=\"%s\"", id,
             luna_err_name(task->op.err), task->op.detail);
}

static void attempt_stored(luna_broker *b, luna_task *task)
{
    const luna_job_key key = {.id = task->op.id, .attempt = task->attempt};
    if (task->op.err != LUNA_OK) log_not_stored("attempt_not_stored", task);
    //  Work sent while the sockets close would be lost and counted.
    if (task->op.err != LUNA_OK || b->closing) {
        luna_scheduler_not_started(b->scheduler, &key, luna_now_ms());
        return;
    }
    const uint32_t session = luna_scheduler_started(
        b->scheduler, &key, (int64_t)task->op.in.attempt.started_ms, luna_now_ms());
    luna_slot *slot = session ? luna_work_slot(b, session) : NULL;
    if (slot) luna_work_queue(b, slot, &key);
}

static void start(void *context, const luna_job *job, const luna_decoder *decoder)
{
    luna_broker *b = context;
    luna_task *task = luna_task_new(LUNA_STORE_ATTEMPT, &job->id, attempt_stored);
    if (!task) return;  //  taken back when the lease ends
    memcpy(task->name, decoder->name, sizeof task->name);
    task->attempt = job->attempts;
    task->op.in.attempt = (luna_store_attempt){.attempt = job->attempts,
                                               .decoder = luna_text_of(task->name),
                                               .started_ms = (uint64_t)luna_wall_ms()};
    luna_task_submit(b, task);
}

static void tell_ended(luna_broker *b, const luna_task *task, const luna_job *job)
{
    luna_metrics_ended(b, job, task->op.in.finish.state, task->op.in.finish.finished_ms);
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&task->op.id, id);
    const char *state = luna_job_state_name(task->op.in.finish.state);
    luna_log(
        task->op.in.finish.state == LUNA_JOB_FAILED ? LUNA_LOG_WARNING : LUNA_LOG_INFO,
        state, "job=%s attempts=%u images=%u/%u decoder=%s err=%s detail=\"%s\"", id,
        job->attempts, job->images_done, job->images, task->name, task->error,
        task->detail);
    luna_msg_job_info info = luna_info_job(b, job);
    info.state = luna_text_of(state);
    info.finished_ms = task->op.in.finish.finished_ms;
    info.decoder = luna_text_of(task->name[0] ? task->name : NULL);
    info.error = luna_text_of(task->error[0] ? task->error : NULL);
    info.detail = luna_text_of(task->detail[0] ? task->detail : NULL);
    info.files.items = task->op.in.finish.images.items;
    info.files.count = task->op.in.finish.images.count;
    info.vae_name = task->op.in.finish.vae.name;
    info.vae_path = task->op.in.finish.vae.path;
    info.vae_sha256 = task->op.in.finish.vae.sha256;
    luna_events_job(b, state, &info);
}

static void end_stored(luna_broker *b, luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    if (task->op.err == LUNA_OK) {
        b->ended[task->op.in.finish.state]++;
        if (job) tell_ended(b, task, job);
    } else {
        log_not_stored("end_not_stored", task);
    }
    luna_scheduler_ended(b->scheduler, &task->op.id);
    if (task->order) luna_answer_order(b, &task->peer, task->re, task->op.err, 1);
}

//  The task takes the message in hand when it brought the images.
static void take_saved(luna_broker *b, luna_task *task, luna_store_images *images)
{
    if (b->current.saved.count == 0 || b->current.saved_taken) return;
    *images = b->current.saved;
    task->message = *b->current.message;
    *b->current.message = (luna_message){0};
    b->current.saved_taken = true;
}

static void counters_stored(luna_broker *b, luna_task *task)
{
    (void)b;
    if (task->op.err != LUNA_OK) log_not_stored("counters_not_stored", task);
}

//  A failed end has counted one more attempt, which the row must show.
static void store_counters(luna_broker *b, const luna_job *job)
{
    luna_task *task = luna_task_new(LUNA_STORE_REQUEUE, &job->id, counters_stored);
    if (!task) return;
    task->op.in.requeue =
        (luna_store_requeue){.lost = job->lost, .refused = job->refused};
    luna_task_submit(b, task);
}

static void finish(void *context, const luna_job *job, const luna_verdict *verdict)
{
    luna_broker *b = context;
    luna_task *task = luna_task_new(LUNA_STORE_FINISH, &job->id, end_stored);
    if (!task) return;  //  stays in progress; the next start takes it up again
    const luna_slot *slot =
        b->current.message ? luna_work_peer(b, &b->current.message->peer) : NULL;
    const luna_decoder *decoder =
        slot ? luna_scheduler_decoder(b->scheduler, slot->session) : NULL;
    luna_text_copy(luna_text_of(decoder ? decoder->name : ""), task->name,
                   sizeof task->name);
    luna_text_copy(luna_text_of(verdict->error), task->error, sizeof task->error);
    luna_text_copy(luna_text_of(verdict->detail), task->detail, sizeof task->detail);
    task->op.in.finish =
        (luna_store_finish){.state = verdict->state,
                            .error = luna_text_of(task->error[0] ? task->error : NULL),
                            .detail = luna_text_of(task->detail[0] ? task->detail : NULL),
                            .finished_ms = (uint64_t)luna_wall_ms()};
    if (b->current.order) {
        task->order = true;
        task->re = b->current.re;
        task->peer = b->current.message->peer;
        b->current.order = false;
    }
    take_saved(b, task, &task->op.in.finish.images);
    if (task->op.in.finish.images.count) task->op.in.finish.vae = b->current.vae;
    if (verdict->state == LUNA_JOB_FAILED) store_counters(b, job);
    luna_task_submit(b, task);
}

static void requeue_stored(luna_broker *b, luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    //  In memory the counters are right; on the disk they lag until the next write.
    if (task->op.err != LUNA_OK) log_not_stored("requeue_not_stored", task);
    if (!job || job->place == LUNA_PLACE_ENDING) return;
    luna_msg_job_info info = luna_info_job(b, job);
    info.error = luna_text_of(task->error[0] ? task->error : NULL);
    info.detail = luna_text_of(task->detail[0] ? task->detail : NULL);
    luna_events_job(b, "requeued", &info);
}

static void log_requeued(const luna_job *job, const luna_verdict *verdict)
{
    char id[LUNA_ID_TEXT_BYTES];
    luna_id_text(&job->id, id);
    const int64_t wait_ms =
        job->place == LUNA_PLACE_DEFERRED ? job->wake_ms - luna_now_ms() : 0;
    luna_log(LUNA_LOG_WARNING, "requeued",
             "job=%s attempt=%u lost=%u refused=%u err=%s detail=\"%s\" next=\"again in "
             "%lld ms\"",
             id, job->attempts, job->lost, job->refused, verdict->error, verdict->detail,
             (long long)(wait_ms > 0 ? wait_ms : 0));
}

static void give_back(void *context, const luna_job *job, const luna_verdict *verdict)
{
    luna_broker *b = context;
    b->tally.requeued++;
    if (strcmp(verdict->error, "lost") == 0 ||
        strcmp(verdict->error, luna_err_name(LUNA_DEVICE)) == 0)
        b->tally.lost++;
    else if (verdict->error[0])
        b->tally.declined++;
    log_requeued(job, verdict);
    luna_task *task = luna_task_new(LUNA_STORE_REQUEUE, &job->id, requeue_stored);
    if (!task) return;
    luna_text_copy(luna_text_of(verdict->error), task->error, sizeof task->error);
    luna_text_copy(luna_text_of(verdict->detail), task->detail, sizeof task->detail);
    task->op.in.requeue = (luna_store_requeue){
        .lost = job->lost,
        .refused = job->refused,
        .error = luna_text_of(task->error[0] ? task->error : NULL),
        .detail = luna_text_of(task->detail[0] ? task->detail : NULL)};
    luna_task_submit(b, task);
}

static void stop(void *context, const luna_decoder *decoder, const luna_job_key *key)
{
    luna_broker *b = context;
    const luna_slot *slot = luna_work_slot(b, decoder->session);
    if (slot) luna_work_stop(b, &slot->peer, key);
}

static void gone(void *context, const luna_decoder *decoder, const char *why)
{
    luna_broker *b = context;
    luna_log(decoder->orderly ? LUNA_LOG_INFO : LUNA_LOG_WARNING, "decoder_gone",
             "decoder=%s pid=%llu detail=\"%s\"", decoder->name,
             (unsigned long long)decoder->pid, why);
    luna_work_give_up(b, decoder->session);
    luna_events_decoder(b, decoder->orderly ? "gone" : "lost", decoder);
}

luna_calls luna_dispatch_calls(luna_broker *b)
{
    return (luna_calls){.context = b,
                        .start = start,
                        .finish = finish,
                        .give_back = give_back,
                        .stop = stop,
                        .gone = gone};
}

//  ---- images --------------------------------------------------------------------

static void images_stored(luna_broker *b, luna_task *task)
{
    const luna_job *job = luna_scheduler_find(b->scheduler, &task->op.id);
    if (task->op.err != LUNA_OK || !job) return;
    luna_msg_job_info info = luna_info_job(b, job);
    info.files.items = task->op.in.images.items;
    info.files.count = task->op.in.images.count;
    luna_events_job(b, "image", &info);
}

void luna_dispatch_record(luna_broker *b, const luna_id *id)
{
    if (b->current.saved.count == 0 || b->current.saved_taken) return;
    luna_task *task = luna_task_new(LUNA_STORE_IMAGES, id, images_stored);
    if (!task) return;
    take_saved(b, task, &task->op.in.images);
    luna_task_submit(b, task);
}

void luna_dispatch_settle(luna_broker *b)
{
    if (!b->stopping) luna_scheduler_dispatch(b->scheduler, luna_now_ms());
    luna_task_hand_over(b);
}
