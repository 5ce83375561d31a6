//  cards.h - which of a machine's cards a device's name means
//
//  "cuda:N" counts as CUDA does (CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER apply);
//  "cuda:GPU-8f3a..." is the card whose UUID begins so, whatever its number is today, as
//  nvidia-smi -L prints it; "cuda:MIG-..." is an instance of a divided card.
//
//  Knows nothing of CUDA: the backend lists the cards.

#ifndef LUNA_DECODER_VAE_CARDS_H
#define LUNA_DECODER_VAE_CARDS_H

#include "common/err.h"

#include <stddef.h>

#define LUNA_CARDS_MAX       64
#define LUNA_CARD_UUID_BYTES 48

typedef struct luna_card {
    char uuid[LUNA_CARD_UUID_BYTES];  //  "GPU-" and 36 hexadecimal digits and dashes
    char name[64];                    //  "NVIDIA H100 80GB HBM3"
} luna_card;

typedef enum luna_device_kind {
    LUNA_DEVICE_AUTO,
    LUNA_DEVICE_CPU,
    LUNA_DEVICE_REFERENCE,
    LUNA_DEVICE_NUMBER,    //  cuda:N
    LUNA_DEVICE_UUID,      //  cuda:GPU-...
    LUNA_DEVICE_INSTANCE,  //  cuda:MIG-...
} luna_device_kind;

typedef struct luna_device_word {
    luna_device_kind kind;
    int number;        //  of LUNA_DEVICE_NUMBER
    const char *uuid;  //  of the other two cards: the word's own end
} luna_device_word;

//  Reads "auto", "cpu", "reference" or "cuda:WHICH"; looks at no machine. LUNA_USAGE.
LUNA_MUST_USE luna_err luna_device_parse(const char *device, luna_device_word *out);

//  The place in `cards` of a LUNA_DEVICE_NUMBER or LUNA_DEVICE_UUID. LUNA_UNAVAILABLE
//  when there is none, or a UUID's beginning fits several: the sentence lists the cards.
LUNA_MUST_USE luna_err luna_card_choose(const luna_card *cards, size_t count,
                                        const luna_device_word *word, int *index);

#endif
