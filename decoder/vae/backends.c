#include "decoder/vae/backend.h"
#include "decoder/vae/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

//  This file is the only place that knows which backends there are; the first of a device
//  is taken.
static const luna_backend *const backends[] = {
#if LUNA_VAE_CPU
    &luna_backend_cpu,
#endif
    &luna_backend_reference,
};

//  In a build without it the plain C backend is what "cpu" means.
static const luna_backend *cpu_backend(void)
{
    return backends[0];
}

//  The cards are listed when their UUIDs are asked for, or told: it takes a while.
static luna_err choose_card(const luna_backend *cuda, const luna_device_word *word,
                            int *index)
{
    luna_card cards[LUNA_CARDS_MAX];
    size_t count = 0;
    *index = word->number;
    if (word->kind == LUNA_DEVICE_NUMBER && cuda->probe(*index) == LUNA_OK)
        return LUNA_OK;
    LUNA_TRY(cuda->cards(cards, LUNA_CARDS_MAX, &count));
    LUNA_TRY(luna_card_choose(cards, count, word, index));
    return cuda->probe(*index);
}

//  CUDA shows a process one instance of a divided card: the one that this variable names
//  when the driver starts. It is then the only card there is.
static luna_err show_instance(const char *uuid)
{
    static const char variable[] = "CUDA_VISIBLE_DEVICES";
    if (setenv(variable, uuid, 0) != 0)
        return luna_error(LUNA_NO_MEMORY, "no memory to choose a MIG instance");
    if (strcasecmp(getenv(variable), uuid) == 0) return LUNA_OK;
    return luna_error(LUNA_UNAVAILABLE, "%s is set to '%.200s'; unset it", variable,
                      getenv(variable));
}

//  The plugin's backend, when it has such a card.
static luna_err find_cuda(const luna_device_word *word, const luna_backend **out,
                          int *index)
{
    static const luna_device_word first = {.kind = LUNA_DEVICE_NUMBER};
    const luna_backend *cuda = NULL;
    const bool instance = word->kind == LUNA_DEVICE_INSTANCE;
    if (instance) LUNA_TRY(show_instance(word->uuid));
    LUNA_TRY(luna_plugin_cuda(&cuda));
    LUNA_TRY(choose_card(cuda, instance ? &first : word, index));
    *out = cuda;
    return LUNA_OK;
}

//  luna_error_text says why it is the CPU.
static void find_auto(const luna_backend **out, int *index)
{
    static const luna_device_word first = {.kind = LUNA_DEVICE_NUMBER};
    if (find_cuda(&first, out, index) == LUNA_OK) return;
    *out = cpu_backend();
    *index = 0;
}

static luna_err find_named(const char *device, const luna_device_word *word,
                           const luna_backend **out, int *index)
{
    const luna_err err = find_cuda(word, out, index);
    if (err == LUNA_OK) return LUNA_OK;
    return luna_error(err, "the device '%s' is not there: %s", device, luna_error_text());
}

luna_err luna_backend_find(const char *device, const luna_backend **out, int *index)
{
    luna_device_word word;
    LUNA_TRY(luna_device_parse(device, &word));
    *index = 0;
    switch (word.kind) {
        case LUNA_DEVICE_AUTO:
            find_auto(out, index);
            return LUNA_OK;
        case LUNA_DEVICE_CPU:
            *out = cpu_backend();
            return LUNA_OK;
        case LUNA_DEVICE_REFERENCE:
            *out = &luna_backend_reference;
            return LUNA_OK;
        default:
            return find_named(device, &word, out, index);
    }
}

void luna_backend_name(const luna_backend *backend, int index,
                       char out[LUNA_DEVICE_BYTES])
{
    if (backend->cards)
        snprintf(out, LUNA_DEVICE_BYTES, "%s:%d", backend->device, index);
    else
        snprintf(out, LUNA_DEVICE_BYTES, "%s", backend->device);
}
