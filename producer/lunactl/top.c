//  top: the broker as it goes
//
//  Events only say that something happened; what is shown is asked for, at most each
//  LEAST_MS and at least each MOST_MS.

#include "producer/lunactl/top.h"

#include "common/clock.h"
#include "producer/lunactl/screen.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LEAST_MS 250
#define MOST_MS  1000

//  On the client's thread.
static void note_news(void *context, const luna_event *event)
{
    const uint64_t one = 1;
    (void)event;
    //  It fails only when there is more news than anybody counts.
    if (write(*(const int *)context, &one, sizeof one) < 0) return;
}

static void take_news(int news)
{
    uint64_t count;
    if (read(news, &count, sizeof count) < 0) return;
}

static luna_err print_once(luna_ctl *ctl, luna_top_data *data)
{
    LUNA_TRY(luna_top_ask(ctl, data));
    if (ctl->json) return luna_ctl_print_json_line(luna_top_json(data));
    luna_page page = luna_page_on(stdout);
    return luna_top_print(data, &page, 0, luna_endpoint(ctl->client));
}

//  An object a line, until the broker does not answer any more.
static luna_err print_lines(luna_ctl *ctl, luna_top_data *data, int news)
{
    for (;;) {
        const int64_t asked_ms = luna_now_ms();
        LUNA_TRY(print_once(ctl, data));
        poll(&(struct pollfd){.fd = news, .events = POLLIN}, 1, MOST_MS);
        take_news(news);
        const int64_t early_ms = asked_ms + LEAST_MS - luna_now_ms();
        if (early_ms > 0) poll(NULL, 0, (int)early_ms);
    }
}

//  ---- on a screen -------------------------------------------------------------------

typedef struct live {
    luna_ctl *ctl;
    luna_top_data *data;
    luna_screen screen;
    int news;
} live;

static luna_err draw(live *self)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out) return luna_error(LUNA_NO_MEMORY, "out of memory");
    luna_page page = luna_page_on(stdout);
    page.out = out;
    page.width = self->screen.columns;
    luna_err err = luna_top_print(self->data, &page, self->screen.rows,
                                  luna_endpoint(self->ctl->client));
    if (fclose(out) != 0 && err == LUNA_OK)
        err = luna_error(LUNA_NO_MEMORY, "out of memory");
    if (err == LUNA_OK) err = luna_screen_show(&self->screen, text);
    free(text);
    return err;
}

//  Until it is time to ask again. News counts once LEAST_MS have passed.
static luna_err idle(live *self, int64_t asked_ms, bool *leave)
{
    for (;;) {
        const int64_t past_ms = luna_now_ms() - asked_ms;
        const bool early = past_ms < LEAST_MS;
        const int64_t left_ms = (early ? LEAST_MS : MOST_MS) - past_ms;
        if (left_ms <= 0) return LUNA_OK;
        switch (luna_screen_wait(&self->screen, early ? -1 : self->news, (int)left_ms)) {
            case LUNA_SCREEN_LEAVE:
                *leave = true;
                return LUNA_OK;
            case LUNA_SCREEN_NEWS:
                take_news(self->news);
                return LUNA_OK;
            case LUNA_SCREEN_RESIZED:
                LUNA_TRY(draw(self));
                break;
            case LUNA_SCREEN_TIME:
                break;
        }
    }
}

//  A broker that does not answer is shown as such and waited for.
static luna_err run(live *self)
{
    bool leave = false;
    for (;;) {
        const int64_t asked_ms = luna_now_ms();
        LUNA_TRY(draw(self));
        LUNA_TRY(idle(self, asked_ms, &leave));
        if (leave) return LUNA_OK;
        const luna_err asked = luna_top_ask(self->ctl, self->data);
        (void)asked;  //  the page shows it
    }
}

static luna_err run_live(luna_ctl *ctl, luna_top_data *data, int news)
{
    live self = {.ctl = ctl, .data = data, .news = news};
    LUNA_TRY(luna_top_ask(ctl, data));
    LUNA_TRY(luna_screen_open(&self.screen));
    const luna_err err = run(&self);
    luna_screen_close(&self.screen);
    return err;
}

static luna_err follow(luna_ctl *ctl, luna_top_data *data)
{
    int news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (news < 0) return luna_error_errno(LUNA_UNAVAILABLE, "cannot make an eventfd");
    luna_err err = luna_ctl_rc(luna_events(ctl->client, note_news, &news));
    if (err == LUNA_OK)
        err = ctl->json ? print_lines(ctl, data, news) : run_live(ctl, data, news);
    if (luna_events(ctl->client, NULL, NULL) == LUNA_RC_OK) close(news);
    return err;
}

luna_err luna_ctl_top(luna_ctl *ctl)
{
    luna_top_data data = {0};
    LUNA_TRY(luna_ctl_connect(ctl));
    const bool once = ctl->once || (!ctl->json && !luna_screen_possible());
    const luna_err err = once ? print_once(ctl, &data) : follow(ctl, &data);
    luna_top_free(&data);
    return err;
}
