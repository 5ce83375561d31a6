#include "decoder/vae/cards.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static luna_err no_device(const char *device)
{
    return luna_error(LUNA_USAGE,
                      "the device '%.60s' is not one: auto, cpu, cuda:N or cuda:GPU-UUID "
                      "(nvidia-smi -L lists the UUIDs)",
                      device);
}

//  At least one digit after the prefix: a beginning of a UUID will do.
static bool is_uuid(const char *word, const char *prefix)
{
    const size_t skip = strlen(prefix), len = strlen(word);
    if (len <= skip || len >= LUNA_CARD_UUID_BYTES) return false;
    if (strncasecmp(word, prefix, skip) != 0) return false;
    for (size_t i = skip; i < len; i++)
        if (!isxdigit((unsigned char)word[i]) && word[i] != '-') return false;
    return true;
}

static bool is_number(const char *word, int *out)
{
    int used = 0;
    return isdigit((unsigned char)word[0]) && sscanf(word, "%3d%n", out, &used) == 1 &&
           word[used] == '\0';
}

static bool parse_card(const char *word, luna_device_word *out)
{
    out->uuid = word;
    out->kind = LUNA_DEVICE_UUID;
    if (is_uuid(word, "GPU-")) return true;
    out->kind = LUNA_DEVICE_INSTANCE;
    if (is_uuid(word, "MIG-")) return true;
    out->kind = LUNA_DEVICE_NUMBER;
    return is_number(word, &out->number);
}

luna_err luna_device_parse(const char *device, luna_device_word *out)
{
    static const struct {
        const char *word;
        luna_device_kind kind;
    } words[] = {{"auto", LUNA_DEVICE_AUTO},
                 {"cpu", LUNA_DEVICE_CPU},
                 {"reference", LUNA_DEVICE_REFERENCE}};
    *out = (luna_device_word){.number = 0};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        out->kind = words[i].kind;
        if (strcmp(device, words[i].word) == 0) return LUNA_OK;
    }
    if (strncmp(device, "cuda:", 5) == 0 && parse_card(device + 5, out)) return LUNA_OK;
    return no_device(device);
}

//  ---- the cards there are ----------------------------------------------------------

enum { LIST_ROOM = 700 };

//  "cuda:0 NVIDIA H100 (GPU-...), ..."
static void list(const luna_card *cards, size_t count, char out[LIST_ROOM])
{
    size_t used = 0;
    snprintf(out, LIST_ROOM, "none");
    for (size_t i = 0; i < count && used < LIST_ROOM; i++)
        used += (size_t)snprintf(out + used, LIST_ROOM - used, "%scuda:%zu %s (%s)",
                                 i ? ", " : "", i, cards[i].name, cards[i].uuid);
}

static luna_err not_there(const luna_card *cards, size_t count, const char *what)
{
    char there[LIST_ROOM];
    list(cards, count, there);
    return luna_error(LUNA_UNAVAILABLE, "%s; there are: %s", what, there);
}

static luna_err choose_uuid(const luna_card *cards, size_t count, const char *uuid,
                            int *index)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (strncasecmp(cards[i].uuid, uuid, strlen(uuid)) != 0) continue;
        *index = (int)i;
        found++;
    }
    if (found == 1) return LUNA_OK;
    return not_there(cards, count,
                     found ? "several GPUs have a UUID that begins so"
                           : "no GPU has a UUID that begins so");
}

luna_err luna_card_choose(const luna_card *cards, size_t count,
                          const luna_device_word *word, int *index)
{
    if (word->kind == LUNA_DEVICE_UUID)
        return choose_uuid(cards, count, word->uuid, index);
    *index = word->number;
    if ((size_t)word->number < count) return LUNA_OK;
    return not_there(cards, count, "no GPU has this number");
}
