//  accept.h - does this decoder offer what a job asks for?
//
//  What it does not offer is refused with a sentence, never passed over in silence.

#ifndef LUNA_WORKER_ACCEPT_H
#define LUNA_WORKER_ACCEPT_H

#include "proto/formats.h"

//  LUNA_UNSUPPORTED: a save mode or a format that is not offered here.
LUNA_MUST_USE luna_err luna_accept_job(const luna_msg_job *job);

//  The formats that this decoder writes; what it does not is logged once here. After
//  luna_image_start.
luna_formats luna_accept_formats(void);

#endif
