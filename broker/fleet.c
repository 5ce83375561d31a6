#include "broker/fleet.h"

#include <stdlib.h>
#include <string.h>

static void free_decoder(luna_decoder *decoder)
{
    for (size_t i = 0; i < decoder->vae_count; i++)
        free((void *)(uintptr_t)decoder->vaes[i].name.data);
    free(decoder->vaes);
    free(decoder);
}

static luna_err copy_vaes(luna_decoder *decoder, const luna_msg_hello *hello)
{
    const size_t count =
        hello->vaes.count < LUNA_VAES_MAX ? hello->vaes.count : LUNA_VAES_MAX;
    if (count == 0) return LUNA_OK;
    decoder->vaes = calloc(count, sizeof *decoder->vaes);
    if (!decoder->vaes)
        return luna_error(LUNA_NO_MEMORY, "no memory for %zu VAEs", count);
    for (size_t i = 0; i < count; i++) {
        const luna_text name = hello->vaes.items[i].name;
        char *copy = malloc(name.len + 1);
        if (!copy) return luna_error(LUNA_NO_MEMORY, "no memory for %zu VAEs", count);
        luna_text_copy(name, copy, name.len + 1);
        decoder->vaes[decoder->vae_count++].name = (luna_text){copy, name.len};
    }
    return LUNA_OK;
}

static luna_err new_decoder(const luna_msg_hello *hello, luna_decoder **out)
{
    luna_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return luna_error(LUNA_NO_MEMORY, "no memory for one more decoder");
    decoder->instance = hello->instance;
    decoder->pid = hello->pid;
    luna_text_copy(hello->name, decoder->name, sizeof decoder->name);
    luna_text_copy(hello->device, decoder->device, sizeof decoder->device);
    luna_text_copy(hello->version, decoder->version, sizeof decoder->version);
    luna_text_copy(hello->host, decoder->host, sizeof decoder->host);
    decoder->formats =
        hello->formats.data ? luna_formats_parse(hello->formats) : LUNA_FORMATS_ALL;
    luna_formats_write(decoder->formats, decoder->format_words);
    const luna_err err = copy_vaes(decoder, hello);
    if (err == LUNA_OK)
        *out = decoder;
    else
        free_decoder(decoder);
    return err;
}

void luna_fleet_remove(luna_fleet *fleet, luna_decoder *decoder)
{
    for (size_t i = 0; i < fleet->count; i++) {
        if (fleet->at[i] != decoder) continue;
        fleet->at[i] = fleet->at[--fleet->count];
        fleet->version++;
        free_decoder(decoder);
        return;
    }
}

void luna_fleet_clear(luna_fleet *fleet)
{
    while (fleet->count > 0) luna_fleet_remove(fleet, fleet->at[fleet->count - 1]);
}

//  The lost one of this name, else with a full fleet the one lost longest ago.
static luna_decoder *dispensable(const luna_fleet *fleet, const char *name)
{
    luna_decoder *oldest = NULL;
    for (size_t i = 0; i < fleet->count; i++) {
        luna_decoder *each = fleet->at[i];
        if (each->state != LUNA_DECODER_LOST) continue;
        if (strcmp(each->name, name) == 0) return each;
        if (!oldest || each->seen_ms < oldest->seen_ms) oldest = each;
    }
    return fleet->count == LUNA_DECODERS_MAX ? oldest : NULL;
}

luna_err luna_fleet_add(luna_fleet *fleet, const luna_msg_hello *hello, int64_t now_ms,
                        luna_decoder **out)
{
    luna_decoder *decoder = NULL;
    LUNA_TRY(new_decoder(hello, &decoder));
    luna_decoder *old = dispensable(fleet, decoder->name);
    if (old) luna_fleet_remove(fleet, old);
    if (fleet->count == LUNA_DECODERS_MAX) {
        free_decoder(decoder);
        return luna_error(LUNA_BUSY, "%d decoders are connected; no more are taken",
                          LUNA_DECODERS_MAX);
    }
    decoder->session = ++fleet->last_session;
    decoder->seen_ms = now_ms;
    fleet->at[fleet->count++] = decoder;
    fleet->version++;
    *out = decoder;
    return LUNA_OK;
}

luna_decoder *luna_fleet_find(const luna_fleet *fleet, uint32_t session)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->at[i]->session == session && fleet->at[i]->state != LUNA_DECODER_LOST)
            return fleet->at[i];
    return NULL;
}

luna_decoder *luna_fleet_instance(const luna_fleet *fleet, const luna_id *instance)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->at[i]->state != LUNA_DECODER_LOST &&
            luna_id_compare(&fleet->at[i]->instance, instance) == 0)
            return fleet->at[i];
    return NULL;
}

bool luna_decoder_serves(const luna_decoder *decoder, const char *vae)
{
    for (size_t i = 0; i < decoder->vae_count; i++)
        if (luna_text_is(decoder->vaes[i].name, vae)) return true;
    return false;
}

bool luna_decoder_writes(const luna_decoder *decoder, luna_formats formats)
{
    return (decoder->formats & formats) == formats;
}

bool luna_decoder_works(const luna_decoder *decoder)
{
    return decoder->state == LUNA_DECODER_READY && !decoder->draining &&
           decoder->credit_jobs > 0;
}

bool luna_decoder_has_room(const luna_decoder *decoder, uint64_t bytes)
{
    if (decoder->hold_count >= decoder->credit_jobs) return false;
    if (decoder->hold_count == 0) return true;
    return decoder->held_bytes <= decoder->credit_bytes &&
           bytes <= decoder->credit_bytes - decoder->held_bytes;
}

luna_hold *luna_decoder_hold(luna_decoder *decoder, const luna_id *id, uint32_t attempt)
{
    for (size_t i = 0; i < decoder->hold_count; i++)
        if (decoder->holds[i].attempt == attempt &&
            luna_id_compare(&decoder->holds[i].id, id) == 0)
            return &decoder->holds[i];
    return NULL;
}

bool luna_decoder_holds(const luna_decoder *decoder, const luna_msg_job_key *key)
{
    for (size_t i = 0; i < decoder->hold_count; i++)
        if (decoder->holds[i].attempt == key->attempt &&
            luna_id_compare(&decoder->holds[i].id, &key->id) == 0)
            return true;
    return false;
}

bool luna_decoder_holds_job(const luna_decoder *decoder, const luna_id *id)
{
    for (size_t i = 0; i < decoder->hold_count; i++)
        if (luna_id_compare(&decoder->holds[i].id, id) == 0) return true;
    return false;
}

void luna_decoder_take(luna_decoder *decoder, const luna_hold *hold)
{
    decoder->holds[decoder->hold_count++] = *hold;
    decoder->held_bytes += hold->bytes;
}

void luna_decoder_release(luna_decoder *decoder, luna_hold *hold)
{
    decoder->held_bytes -= hold->bytes;
    *hold = decoder->holds[--decoder->hold_count];
}

//  ---- sets ----------------------------------------------------------------------

static void put(luna_decoder_set *set, size_t place)
{
    set->bits[place / 64] |= UINT64_C(1) << (place % 64);
}

bool luna_decoder_set_has(const luna_decoder_set *set, size_t place)
{
    return set->bits[place / 64] >> (place % 64) & 1;
}

//  Those of `from` that are in `fit`, or `from` when none is.
static luna_decoder_set narrow(luna_decoder_set from, luna_decoder_set fit)
{
    bool any = false;
    for (size_t i = 0; i < sizeof from.bits / sizeof from.bits[0]; i++) {
        fit.bits[i] &= from.bits[i];
        any |= fit.bits[i] != 0;
    }
    return any ? fit : from;
}

luna_decoder_set luna_fleet_for(const luna_fleet *fleet, const char *vae,
                                luna_formats formats)
{
    luna_decoder_set all = {0}, listing = {0}, writing = {0};
    for (size_t i = 0; i < fleet->count; i++) {
        put(&all, i);
        if (luna_decoder_serves(fleet->at[i], vae)) put(&listing, i);
        if (luna_decoder_writes(fleet->at[i], formats)) put(&writing, i);
    }
    return narrow(narrow(all, listing), writing);
}

bool luna_fleet_free(const luna_fleet *fleet, luna_decoder_set *out)
{
    bool any = false;
    *out = (luna_decoder_set){0};
    for (size_t i = 0; i < fleet->count; i++) {
        const luna_decoder *each = fleet->at[i];
        if (!luna_decoder_works(each) || each->hold_count >= each->credit_jobs) continue;
        put(out, i);
        any = true;
    }
    return any;
}
