//  status and metrics: the broker as a whole.

#include "producer/lunactl/lunactl.h"

#include <string.h>

static void print_queue(luna_page *page, const luna_status *status)
{
    char bytes[LUNA_AMOUNT_BYTES], age[LUNA_AMOUNT_BYTES];
    luna_bytes_text(status->queued_bytes, bytes);
    luna_duration_text(status->oldest_ms, age);
    if (status->pending)
        luna_page_field(page, "pending", LUNA_STYLE_PLAIN, "%llu, %s, oldest %s",
                        (unsigned long long)status->pending, bytes, age);
    else
        luna_page_field(page, "pending", LUNA_STYLE_PLAIN, "0");
    luna_page_field(page, "in_progress", LUNA_STYLE_PLAIN, "%llu",
                    (unsigned long long)status->in_progress);
    luna_page_field(page, "completed", LUNA_STYLE_PLAIN, "%llu",
                    (unsigned long long)status->completed);
    luna_page_field(page, "failed", status->failed ? LUNA_STYLE_BAD : LUNA_STYLE_PLAIN,
                    "%llu", (unsigned long long)status->failed);
    luna_page_field(page, "cancelled", LUNA_STYLE_PLAIN, "%llu",
                    (unsigned long long)status->cancelled);
    luna_page_field(page, "images", LUNA_STYLE_PLAIN, "%llu saved since the start",
                    (unsigned long long)status->images);
}

static void print_status(luna_ctl *ctl, const luna_status *status)
{
    char uptime[LUNA_AMOUNT_BYTES], disk[LUNA_AMOUNT_BYTES];
    luna_page page = luna_page_on(stdout);
    luna_duration_text(status->uptime_ms, uptime);
    luna_bytes_text(status->free_bytes, disk);
    luna_ctl_print_health(&page, status);
    luna_page_field(&page, "broker", LUNA_STYLE_PLAIN, "%s", luna_endpoint(ctl->client));
    luna_page_field(&page, "version", LUNA_STYLE_PLAIN, "%s", status->version);
    luna_page_field(&page, "up", LUNA_STYLE_PLAIN, "%s", uptime);
    luna_page_field(&page, "free space", LUNA_STYLE_PLAIN, "%s", disk);
    luna_page_field(&page, "decoders", LUNA_STYLE_PLAIN, "%llu ready",
                    (unsigned long long)status->decoders);
    print_queue(&page, status);
}

luna_err luna_ctl_status(luna_ctl *ctl)
{
    luna_answer *answer;
    luna_err err = LUNA_OK;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_query_status(ctl->client, LUNA_CTL_WAIT_MS, &answer)));
    if (ctl->json)
        err = luna_ctl_print_json(luna_ctl_json_status(answer->status));
    else
        print_status(ctl, answer->status);
    luna_answer_free(&answer);
    return err;
}

static void print_lines(const char *text)
{
    luna_page page = luna_page_on(stdout);
    while (*text) {
        const size_t len = strcspn(text, "\n");
        luna_page_print(&page, LUNA_STYLE_PLAIN, "%.*s", (int)len, text);
        luna_page_end(&page);
        text += len + (text[len] == '\n');
    }
}

luna_err luna_ctl_metrics(luna_ctl *ctl)
{
    luna_answer *answer;
    luna_err err = LUNA_OK;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_query_metrics(ctl->client, LUNA_CTL_WAIT_MS, &answer)));
    if (ctl->json)
        err = luna_ctl_print_json(json_pack("{s:s}", "text", answer->text));
    else
        print_lines(answer->text);
    luna_answer_free(&answer);
    return err;
}
