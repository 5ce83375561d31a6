//  show.h - a peer's text in a sentence for people

#ifndef LUNA_WORKER_SHOW_H
#define LUNA_WORKER_SHOW_H

#include "proto/message.h"

//  As luna_text_copy, but what does not fit is cut between two characters, so that
//  the sentence stays UTF-8.
void luna_text_show(luna_text text, char *out, size_t room);

#endif
