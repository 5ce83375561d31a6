//  draft.h - a job being put together from a request
//
//  Holds everything its parts point to, except the request's body, which must outlive
//  it. The same settings, under the same names, come from a JSON body's members or from
//  the query string; broker/http/README.md lists them.

#ifndef LUNA_BROKER_HTTP_DRAFT_H
#define LUNA_BROKER_HTTP_DRAFT_H

#include "broker/http/json_walk.h"
#include "common/arena.h"
#include "common/latent_file.h"
#include "proto/codec.h"

#define LUNA_DRAFT_EXTRA   64  //  keys of extra_pnginfo, as on the wire
#define LUNA_DRAFT_IGNORED 16  //  unknown names that are reported

typedef struct luna_draft {
    luna_msg_job job;
    luna_msg_input common;  //  input settings given for the whole job
    luna_msg_input inputs[LUNA_MAX_INPUTS];
    size_t input_count;
    luna_text latents;  //  JSON: the list, not walked yet
    luna_text tensor;   //  safetensors: which one
    luna_pair extra[LUNA_DRAFT_EXTRA];
    size_t extra_count;
    luna_text ignored[LUNA_DRAFT_IGNORED];  //  names that are no setting
    size_t ignored_count;
    bool has_time;  //  created_ms was given
    luna_arena arena;
    luna_latent_file file;  //  safetensors body
    luna_packet *packet;    //  msgpack body
} luna_draft;

//  The defaults, and nothing else.
void luna_draft_init(luna_draft *draft);
void luna_draft_free(luna_draft *draft);

//  One `name=value` of the query string; both are borrowed. An unknown name is noted
//  in `ignored`. LUNA_BAD_REQUEST naming the setting.
LUNA_MUST_USE luna_err luna_draft_query(luna_draft *draft, luna_text name,
                                        luna_text value);

//  Each reads a body of its kind. `body` is borrowed; luna_draft_json decodes base64
//  over it. LUNA_BAD_REQUEST, LUNA_BAD_LATENT, LUNA_UNSUPPORTED, LUNA_PROTOCOL,
//  LUNA_TOO_LARGE or LUNA_NO_MEMORY with a sentence that names the place.
LUNA_MUST_USE luna_err luna_draft_json(luna_draft *draft, char *body, size_t len);
LUNA_MUST_USE luna_err luna_draft_latent_file(luna_draft *draft, const char *body,
                                              size_t len);
LUNA_MUST_USE luna_err luna_draft_msgpack(luna_draft *draft, const char *body,
                                          size_t len);

//  Completes the job after its body: `client`, the id (`key` unless it is nil, else
//  the job's own, else a new one), the time, its lists; then luna_job_check.
//  LUNA_BAD_REQUEST when key and job id differ.
LUNA_MUST_USE luna_err luna_draft_finish(luna_draft *draft, const luna_id *client,
                                         const luna_id *key);

#endif
