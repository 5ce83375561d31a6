//  view.h - the broker's answers as JSON
//
//  Members are named as on the wire; ids are texts. An absent text has no member.

#ifndef LUNA_BROKER_HTTP_VIEW_H
#define LUNA_BROKER_HTTP_VIEW_H

#include "proto/message.h"

#include <jansson.h>

//  NULL when memory runs out. The caller owns the result.
json_t *luna_view_status(const luna_msg_status *status);
json_t *luna_view_job(const luna_msg_job_info *job);
json_t *luna_view_decoder(const luna_msg_decoder_info *decoder);

#endif
