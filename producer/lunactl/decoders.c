#include "producer/lunactl/lunactl.h"

static const luna_column decoder_columns[] = {
    {.title = "DECODER"},
    {.title = "STATE"},
    {.title = "DEVICE"},
    {.title = "JOBS", .right = true},
    {.title = "IMAGES", .right = true},
    {.title = "DONE", .right = true},
    {.title = "FAILED", .right = true},
    {.title = "SEEN", .right = true},
    {.title = "VAE", .most = 24},
    {.title = "FORMATS"},
    {.title = "OFFERS"},
};

//  "a b c", cut to what a cell holds.
static void join_vaes(const luna_decoder *decoder, char *out, size_t room)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < decoder->vae_count && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", i ? " " : "",
                                 decoder->vaes[i]);
}

static void add_decoder(luna_table *table, const luna_decoder *decoder)
{
    char seen[LUNA_AMOUNT_BYTES], vaes[4096];
    luna_duration_short(decoder->seen_ms, seen);
    join_vaes(decoder, vaes, sizeof vaes);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", decoder->name);
    luna_table_cell(table, luna_ctl_state_style(decoder->state), "%s", decoder->state);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", decoder->device);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu/%llu",
                    (unsigned long long)decoder->running,
                    (unsigned long long)decoder->credit_jobs);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu",
                    (unsigned long long)decoder->images_done);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%llu",
                    (unsigned long long)decoder->jobs_done);
    luna_table_cell(table, decoder->jobs_failed ? LUNA_STYLE_WARN : LUNA_STYLE_PLAIN,
                    "%llu", (unsigned long long)decoder->jobs_failed);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", seen);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", luna_ctl_vae_name(decoder->vae));
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", decoder->formats);
    luna_table_cell(table, LUNA_STYLE_PLAIN, "%s", vaes);
}

static luna_err print_decoders(const luna_answer *answer)
{
    luna_page page = luna_page_on(stdout);
    luna_page_fit(&page);
    if (answer->decoder_count == 0) {
        luna_page_put(&page, LUNA_STYLE_PLAIN, "no decoder is connected");
        luna_page_end(&page);
        return LUNA_OK;
    }
    luna_table *table = luna_table_new(
        decoder_columns, sizeof decoder_columns / sizeof decoder_columns[0]);
    for (size_t i = 0; i < answer->decoder_count; i++)
        add_decoder(table, &answer->decoders[i]);
    const luna_err err = luna_table_print(table, &page);
    luna_table_free(&table);
    return err;
}

luna_err luna_ctl_decoders(luna_ctl *ctl)
{
    luna_answer *answer;
    LUNA_TRY(luna_ctl_connect(ctl));
    LUNA_TRY(luna_ctl_rc(luna_query_decoders(ctl->client, LUNA_CTL_WAIT_MS, &answer)));
    const luna_err err = ctl->json ? luna_ctl_print_json(luna_ctl_json_decoders(answer))
                                   : print_decoders(answer);
    luna_answer_free(&answer);
    return err;
}
