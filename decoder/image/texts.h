//  texts.h - one text of an image file's metadata: prompt, workflow and the others
//
//  Every format keeps the same texts under the same keys; embed.h says where.

#ifndef LUNA_IMAGE_TEXTS_H
#define LUNA_IMAGE_TEXTS_H

#include <stddef.h>

//  Keyword of the largest text, the first that is left out where room is short.
#define LUNA_TEXT_HEATMAPS "daam_heatmaps"

typedef enum luna_text_kind {
    LUNA_TEXT_NOTE,       //  for people and indexers
    LUNA_TEXT_GRAPH,      //  JSON that ComfyUI's page restores: prompt, workflow, others
    LUNA_TEXT_PARAMETERS  //  AUTOMATIC1111's; at most one, its keyword is "parameters"
} luna_text_kind;

typedef struct luna_image_text {
    const char *keyword;  //  NUL-terminated, printable Latin-1, 1 to 79 bytes
    const char *text;     //  UTF-8 without a NUL; borrowed
    size_t len;           //  bytes of text, may be 0
    luna_text_kind kind;
} luna_image_text;

#endif
