#include "decoder/worker/parameters.h"

#include <stdio.h>
#include <string.h>

#include "decoder/worker/json_members.h"

typedef struct writer {
    luna_blob metadata;
    luna_arena *memory;
    char *data;  //  room for everything
    size_t len;
    size_t room;
} writer;

static void put(writer *w, const char *text, size_t len)
{
    if (len > w->room - w->len) len = w->room - w->len;
    memcpy(w->data + w->len, text, len);
    w->len += len;
}

static void put_word(writer *w, const char *word)
{
    put(w, word, strlen(word));
}

//  Of one or the other member; empty when there is neither, or it is null.
static luna_err find(const writer *w, const char *key, const char *other, luna_text *out)
{
    luna_text value;
    *out = (luna_text){"", 0};
    if (!luna_members_find(w->metadata, key, &value) &&
        !(other && luna_members_find(w->metadata, other, &value)))
        return LUNA_OK;
    if (luna_text_is(value, "null")) return LUNA_OK;
    return luna_member_text(w->memory, value, out);
}

//  ", Label: value", without the comma behind a line end.
static void put_pair(writer *w, const char *label, luna_text value)
{
    if (value.len == 0) return;
    if (w->len > 0 && w->data[w->len - 1] != '\n') put_word(w, ", ");
    put_word(w, label);
    put_word(w, ": ");
    put(w, value.data, value.len);
}

static luna_err put_member(writer *w, const char *label, const char *key,
                           const char *other)
{
    luna_text value;
    LUNA_TRY(find(w, key, other, &value));
    put_pair(w, label, value);
    return LUNA_OK;
}

//  ---- what is called otherwise there ----------------------------------------------

//  ComfyUI's samplers by AUTOMATIC1111's names; others keep their own.
static luna_text sampler_name(luna_text sampler)
{
    static const char *const names[][2] = {
        {"euler", "Euler"},
        {"euler_ancestral", "Euler a"},
        {"heun", "Heun"},
        {"dpm_2", "DPM2"},
        {"dpm_2_ancestral", "DPM2 a"},
        {"lms", "LMS"},
        {"dpm_fast", "DPM fast"},
        {"dpm_adaptive", "DPM adaptive"},
        {"dpmpp_2s_ancestral", "DPM++ 2S a"},
        {"dpmpp_sde", "DPM++ SDE"},
        {"dpmpp_2m", "DPM++ 2M"},
        {"dpmpp_2m_sde", "DPM++ 2M SDE"},
        {"dpmpp_3m_sde", "DPM++ 3M SDE"},
        {"ddim", "DDIM"},
        {"uni_pc", "UniPC"},
        {"lcm", "LCM"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (luna_text_is(sampler, names[i][0])) return luna_text_of(names[i][1]);
    return sampler;
}

static luna_err put_sampler(writer *w)
{
    luna_text sampler, scheduler;
    LUNA_TRY(find(w, "sampler_name", "sampler", &sampler));
    LUNA_TRY(find(w, "scheduler", NULL, &scheduler));
    put_pair(w, "Sampler", sampler_name(sampler));
    if (sampler.len == 0) return LUNA_OK;
    if (luna_text_is(scheduler, "karras")) put_word(w, " Karras");
    if (luna_text_is(scheduler, "exponential")) put_word(w, " Exponential");
    return LUNA_OK;
}

static luna_err put_denoise(writer *w)
{
    luna_text value;
    LUNA_TRY(find(w, "denoise", NULL, &value));
    if (luna_text_is(value, "1") || luna_text_is(value, "1.0")) return LUNA_OK;
    put_pair(w, "Denoising strength", value);
    return LUNA_OK;
}

//  ComfyUI counts the layers from the end, with a minus.
static luna_err put_clip_skip(writer *w)
{
    luna_text value;
    LUNA_TRY(find(w, "clip_skip", NULL, &value));
    if (value.len > 1 && value.data[0] == '-')
        value = (luna_text){value.data + 1, value.len - 1};
    put_pair(w, "Clip skip", value);
    return LUNA_OK;
}

//  ---- the three lines -------------------------------------------------------------

static luna_err put_prompts(writer *w)
{
    luna_text positive, negative;
    LUNA_TRY(find(w, "positive", "prompt", &positive));
    LUNA_TRY(find(w, "negative", "negative_prompt", &negative));
    put(w, positive.data, positive.len);
    put_word(w, "\nNegative prompt: ");
    put(w, negative.data, negative.len);
    put_word(w, "\n");
    return LUNA_OK;
}

static luna_err put_settings(writer *w, size_t width, size_t height)
{
    char size[64];
    snprintf(size, sizeof size, "%zux%zu", width, height);
    LUNA_TRY(put_member(w, "Steps", "steps", NULL));
    LUNA_TRY(put_sampler(w));
    LUNA_TRY(put_member(w, "CFG scale", "cfg", "cfg_scale"));
    LUNA_TRY(put_member(w, "Seed", "seed", NULL));
    put_pair(w, "Size", luna_text_of(size));
    LUNA_TRY(put_member(w, "Model hash", "model_hash", NULL));
    LUNA_TRY(put_member(w, "Model", "model_name", "model"));
    LUNA_TRY(put_denoise(w));
    LUNA_TRY(put_clip_skip(w));
    put_pair(w, "Version", luna_text_of("ComfyUI"));
    return LUNA_OK;
}

static bool has_any(luna_blob metadata)
{
    static const char *const keys[] = {"positive", "prompt",       "steps",
                                       "seed",     "sampler_name", "sampler"};
    luna_text value;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (luna_members_find(metadata, keys[i], &value)) return true;
    return false;
}

luna_err luna_parameters_make(luna_blob metadata, size_t width, size_t height,
                              luna_arena *memory, luna_text *out)
{
    //  Every value is shorter than the metadata it comes from; labels are bounded.
    writer w = {.metadata = metadata, .memory = memory, .room = metadata.len + 1024};
    *out = (luna_text){0};
    if (!has_any(metadata)) return LUNA_OK;
    w.data = luna_arena_alloc(memory, w.room, 1);
    if (!w.data) return luna_error(LUNA_NO_MEMORY, "no memory for a picture's metadata");
    LUNA_TRY(put_prompts(&w));
    LUNA_TRY(put_settings(&w, width, height));
    *out = (luna_text){w.data, w.len};
    return LUNA_OK;
}
