//  drain, and waiting until the drained decoders hold nothing
//
//  Who is waited for is settled once, right after the order: decoders that come later
//  do not matter, and one that somebody resumes meanwhile would never be empty.

#include "producer/lunactl/lunactl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS    250
#define CLEAR_LINE "\r\033[K"

typedef struct drainage {
    luna_ctl *ctl;
    const char *decoder;  //  NULL: all
    luna_answer *at_first;
    uint64_t uptime_ms;       //  of the broker, when it was last asked
    uint64_t jobs, decoders;  //  still held, by so many
} drainage;

static bool is_draining(const luna_decoder *decoder)
{
    return strcmp(decoder->state, "draining") == 0;
}

static bool is_awaited(const drainage *self, const luna_decoder *at_first)
{
    if (self->decoder) return strcmp(self->decoder, at_first->name) == 0;
    return is_draining(at_first);
}

static const luna_decoder *find(const luna_answer *answer, const char *name)
{
    for (size_t i = 0; i < answer->decoder_count; i++)
        if (strcmp(answer->decoders[i].name, name) == 0) return &answer->decoders[i];
    return NULL;
}

//  A decoder that is lost or gone holds nothing: its jobs are back in the queue.
static luna_err count_held(drainage *self, const luna_answer *now)
{
    self->jobs = self->decoders = 0;
    for (size_t i = 0; i < self->at_first->decoder_count; i++) {
        const luna_decoder *first = &self->at_first->decoders[i];
        const luna_decoder *decoder = find(now, first->name);
        if (!is_awaited(self, first)) continue;
        if (!decoder || strcmp(decoder->state, "lost") == 0) continue;
        if (!is_draining(decoder))
            return luna_error(LUNA_CANCELLED,
                              "decoder %s takes work again: somebody resumed it",
                              first->name);
        self->jobs += decoder->running;
        self->decoders += decoder->running > 0;
    }
    return LUNA_OK;
}

//  A broker that has just started does not know yet what its decoders hold.
static luna_err check_same_broker(drainage *self)
{
    luna_answer *answer;
    LUNA_TRY(
        luna_ctl_rc(luna_query_status(self->ctl->client, LUNA_CTL_WAIT_MS, &answer)));
    const uint64_t uptime_ms = answer->status->uptime_ms;
    luna_answer_free(&answer);
    if (uptime_ms < self->uptime_ms)
        return luna_error(LUNA_BUSY, "the broker was started anew; drain again");
    self->uptime_ms = uptime_ms;
    return LUNA_OK;
}

static luna_err look(drainage *self)
{
    luna_answer *now;
    LUNA_TRY(luna_ctl_rc(luna_query_decoders(self->ctl->client, LUNA_CTL_WAIT_MS, &now)));
    luna_err err = check_same_broker(self);
    if (err == LUNA_OK && !self->at_first) {
        self->at_first = now;
        return count_held(self, now);
    }
    if (err == LUNA_OK) err = count_held(self, now);
    luna_answer_free(&now);
    return err;
}

static void show_progress(const drainage *self)
{
    char jobs[LUNA_AMOUNT_BYTES], decoders[LUNA_AMOUNT_BYTES];
    luna_ctl_count(self->jobs, "job", jobs);
    luna_ctl_count(self->decoders, "decoder", decoders);
    fprintf(stderr, CLEAR_LINE "draining: %s in hand, %s", jobs, decoders);
    fflush(stderr);
}

static luna_err wait_empty(drainage *self)
{
    const bool terminal = isatty(STDERR_FILENO);
    luna_err err;
    while ((err = look(self)) == LUNA_OK && self->jobs > 0) {
        if (terminal) show_progress(self);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    }
    if (terminal) fputs(CLEAR_LINE, stderr);
    luna_answer_free(&self->at_first);
    return err;
}

luna_err luna_ctl_drain(luna_ctl *ctl)
{
    uint64_t changed = 0;
    char count[LUNA_AMOUNT_BYTES];
    drainage self = {.ctl = ctl, .decoder = ctl->word_count > 1 ? ctl->words[1] : NULL};
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(
        luna_ctl_rc(luna_drain(ctl->client, self.decoder, LUNA_CTL_WAIT_MS, &changed)));
    if (ctl->wait) LUNA_TRY(wait_empty(&self));
    if (ctl->json)
        return luna_ctl_print_json(json_pack("{s:I}", "changed", (json_int_t)changed));
    luna_ctl_count(changed, "decoder", count);
    printf("%s %s\n", count, ctl->wait ? "drained" : "draining");
    return LUNA_OK;
}
