//  job.h - what a job must fulfil beyond the wire's own limits
//
//  libluna checks before it sends, the broker before it accepts, so that both give
//  the same sentence for the same mistake.

#ifndef LUNA_PROTO_JOB_H
#define LUNA_PROTO_JOB_H

#include "proto/message.h"

//  1 to 5 inputs; each with a known dtype and format, 4-D [N,C,H,W] or 5-D
//  [N,C,1,H,W], 1 to LUNA_MAX_BATCH images, and exactly the bytes that dtype and
//  shape need; a usable output folder and save mode; heatmaps as heatmaps.h says.
//  LUNA_BAD_REQUEST, LUNA_BAD_LATENT or LUNA_UNSUPPORTED (more than one frame) with a
//  sentence naming the input.
LUNA_MUST_USE luna_err luna_job_check(const luna_msg_job *job);

//  Tells whether two jobs of one id are the same job: luna_msg_sum of all but who sends
//  it and when, so that a job sent again by another process is known. 0: not to be told.
uint64_t luna_job_content(const luna_msg_job *job);

//  Images over all inputs of a checked job.
uint64_t luna_job_images(const luna_msg_job *job);

//  The default values of a new input and job, so that no caller forgets one:
//  png, compression 4, quality 90, subdir on; priority 5, "auto", embedded workflow.
luna_msg_input luna_msg_input_default(void);
luna_msg_job luna_msg_job_default(void);

#endif
