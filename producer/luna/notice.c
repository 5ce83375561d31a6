#include "producer/luna/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  ---- the state -------------------------------------------------------------------

void luna_notice_init(luna_notice_state *state)
{
    *state = (luna_notice_state){0};
    state->last = &state->losses;
}

static luna_loss *take_loss(luna_notice_state *state)
{
    luna_loss *loss = state->losses;
    state->losses = loss->next;
    if (!state->losses) state->last = &state->losses;
    state->loss_count--;
    return loss;
}

void luna_notice_clear(luna_notice_state *state)
{
    while (state->losses) free(take_loss(state));
}

void luna_notice_begin(luna_notice_state *state, luna_trouble_kind kind, luna_err cause,
                       const char *text, uint64_t retry_ms)
{
    luna_trouble *trouble = &state->trouble[kind];
    const char *word = luna_err_name(cause);
    const bool same = strcmp(trouble->cause, word) == 0;
    if (trouble->on && same) return;
    *trouble =
        (luna_trouble){.on = true, .told = trouble->told && same, .retry_ms = retry_ms};
    (void)snprintf(trouble->cause, sizeof trouble->cause, "%s", word);
    (void)snprintf(trouble->text, sizeof trouble->text, "%s", text);
}

void luna_notice_end(luna_notice_state *state, luna_trouble_kind kind)
{
    state->trouble[kind].on = false;
}

void luna_notice_loss(luna_notice_state *state, const char *kind, const luna_id *job,
                      const char *text)
{
    luna_loss *loss = calloc(1, sizeof *loss);
    if (!loss) return;
    loss->kind = kind;
    loss->job = *job;
    (void)snprintf(loss->text, sizeof loss->text, "%s", text);
    *state->last = loss;
    state->last = &loss->next;
    if (++state->loss_count > LUNA_LOSSES_MAX) free(take_loss(state));
}

//  ---- telling ---------------------------------------------------------------------

//  A notice and the texts it points to.
typedef struct draft {
    luna_notice notice;
    char text[LUNA_NOTICE_TEXT_BYTES];
    char job[LUNA_ID_TEXT_BYTES];
} draft;

static const char *const begins[] = {"away", "busy", "outbox", "outbox_failed"};
static const char *const ends[] = {"back", "clear", "delivered", "outbox_works"};

static void say_end(const luna_client *client, luna_trouble_kind kind, draft *out)
{
    const char *outbox = luna_keeper_dir(client);
    switch (kind) {
        case LUNA_TROUBLE_AWAY:
            (void)snprintf(out->text, sizeof out->text,
                           "the broker at %.900s answers again", client->endpoint);
            break;
        case LUNA_TROUBLE_OUTBOX:
            (void)snprintf(out->text, sizeof out->text,
                           "the outbox %.900s is empty: the broker has all jobs", outbox);
            break;
        case LUNA_TROUBLE_FAILED:
            (void)snprintf(out->text, sizeof out->text, "the outbox %.900s works again",
                           outbox);
            break;
        default:
            (void)snprintf(out->text, sizeof out->text, "the broker takes jobs again");
    }
}

static bool next_trouble(luna_client *client, draft *out)
{
    for (int kind = 0; kind < LUNA_TROUBLES; kind++) {
        luna_trouble *trouble = &client->notices.trouble[kind];
        if (trouble->on == trouble->told) continue;
        trouble->told = trouble->on;
        out->notice.kind = trouble->on ? begins[kind] : ends[kind];
        out->notice.retry_ms = trouble->on ? trouble->retry_ms : 0;
        if (trouble->on)
            memcpy(out->text, trouble->text, sizeof out->text);
        else
            say_end(client, (luna_trouble_kind)kind, out);
        return true;
    }
    return false;
}

static bool next_loss(luna_client *client, draft *out)
{
    if (!client->notices.losses) return false;
    luna_loss *loss = take_loss(&client->notices);
    out->notice.kind = loss->kind;
    luna_id_text(&loss->job, out->job);
    memcpy(out->text, loss->text, sizeof out->text);
    free(loss);
    return true;
}

//  Takes one untold notice.
static bool next_notice(luna_client *client, draft *out)
{
    *out = (draft){0};
    pthread_mutex_lock(&client->lock);
    const bool found =
        client->notices.wanted && (next_loss(client, out) || next_trouble(client, out));
    out->notice.jobs = luna_jobs_unsettled(&client->jobs);
    out->notice.bytes = client->jobs.bytes;
    out->notice.kept = luna_jobs_kept_count(&client->jobs);
    pthread_mutex_unlock(&client->lock);
    out->notice.reason = out->text;
    out->notice.job_id = out->job;
    return found;
}

void luna_notice_tick(luna_client *client)
{
    draft one;
    while (next_notice(client, &one)) {
        pthread_mutex_lock(&client->callback_lock);
        if (client->notice_callback)
            client->notice_callback(client->notice_context, &one.notice);
        pthread_mutex_unlock(&client->callback_lock);
    }
}

int luna_notices(luna_client *client, luna_notice_callback *callback, void *context)
{
    LUNA_TRY(luna_client_check(client));
    pthread_mutex_lock(&client->callback_lock);
    client->notice_callback = callback;
    client->notice_context = context;
    pthread_mutex_unlock(&client->callback_lock);
    pthread_mutex_lock(&client->lock);
    client->notices.wanted = callback != NULL;
    for (int kind = 0; kind < LUNA_TROUBLES; kind++)
        client->notices.trouble[kind].told = false;
    pthread_mutex_unlock(&client->lock);
    luna_client_ring(client);
    return LUNA_RC_OK;
}
