#include "proto/heatmaps.h"

static luna_err bad(const luna_msg_heatmaps *set, const char *what)
{
    return luna_error(LUNA_BAD_REQUEST, "heatmaps %.*s %.*s: %s", (int)set->prompt.len,
                      set->prompt.data, (int)set->variant.len, set->variant.data, what);
}

static luna_err check_words(const luna_msg_heatmaps *set)
{
    if (!luna_text_is(set->prompt, "positive") && !luna_text_is(set->prompt, "negative"))
        return luna_error(LUNA_BAD_REQUEST,
                          "heatmaps: their prompt must be positive or negative");
    if (!luna_text_is(set->variant, "original") &&
        !luna_text_is(set->variant, "modified"))
        return luna_error(LUNA_BAD_REQUEST,
                          "heatmaps: their variant must be original or modified");
    return LUNA_OK;
}

static luna_err check_shape(const luna_msg_heatmaps *set)
{
    const uint64_t *at = set->shape.at;
    if (set->shape.count != 4)
        return bad(set, "their shape must be [images, tokens, height, width]");
    if (at[0] == 0 || at[0] > LUNA_MAX_BATCH)
        return bad(set, "they are of no image, or of too many");
    if (at[1] == 0 || at[1] != set->tokens.count)
        return bad(set, "there must be a map for every token");
    if (at[2] == 0 || at[3] == 0 || at[2] > LUNA_MAX_HEATMAP_SIDE ||
        at[3] > LUNA_MAX_HEATMAP_SIDE)
        return bad(set, "a side is 0 or beyond 1024");
    return LUNA_OK;
}

//  Of one image. Does not overflow: at most 2^10 tokens of 2^20 floats.
static uint64_t image_bytes(const luna_msg_heatmaps *set)
{
    return set->shape.at[1] * luna_heatmap_bytes(set);
}

static luna_err check_set(const luna_msg_heatmaps *set)
{
    LUNA_TRY(check_words(set));
    LUNA_TRY(check_shape(set));
    if (set->maps.len != set->shape.at[0] * image_bytes(set))
        return bad(set, "their bytes do not match their shape");
    return LUNA_OK;
}

//  A bit for each of the sets there can be.
static unsigned bit_of(const luna_msg_heatmaps *set)
{
    const unsigned negative = luna_text_is(set->prompt, "negative");
    const unsigned modified = luna_text_is(set->variant, "modified");
    return 1u << (2 * negative + modified);
}

luna_err luna_heatmaps_check(const luna_msg_job *job)
{
    uint64_t bytes = 0;
    unsigned seen = 0;
    for (size_t i = 0; i < job->heatmaps.count; i++) {
        const luna_msg_heatmaps *set = &job->heatmaps.items[i];
        LUNA_TRY(check_set(set));
        if (seen & bit_of(set)) return bad(set, "they are there twice");
        seen |= bit_of(set);
        bytes += image_bytes(set);
    }
    if (bytes <= LUNA_MAX_HEATMAP_BYTES) return LUNA_OK;
    return luna_error(LUNA_TOO_LARGE,
                      "the heatmaps of an image have %llu bytes; at most %d",
                      (unsigned long long)bytes, LUNA_MAX_HEATMAP_BYTES);
}

size_t luna_heatmap_bytes(const luna_msg_heatmaps *set)
{
    return (size_t)(set->shape.at[2] * set->shape.at[3]) * sizeof(float);
}

const uint8_t *luna_heatmaps_of(const luna_msg_heatmaps *set, size_t index)
{
    const size_t n = set->shape.at[0] == 1 ? 0 : index;
    if (n >= set->shape.at[0]) return NULL;
    return (const uint8_t *)set->maps.data + n * image_bytes(set);
}
