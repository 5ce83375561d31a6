//  work.h - one work message and the job in it
//
//  The message is opened at once, its payload later: mapping, checking and unpacking
//  a job belongs to the thread that decodes, never to the one that serves the broker.

#ifndef LUNA_WORKER_WORK_H
#define LUNA_WORKER_WORK_H

#include "proto/message.h"

//  A received message; `free` is called on `data` when it is no longer needed.
typedef struct luna_received {
    void *handle;
    const void *data;
    size_t len;
    void (*free)(void *handle);
} luna_received;

typedef struct luna_work luna_work;

//  Reads the framing and fields of a work message, not its payload. Takes the message
//  over, also when it fails. LUNA_PROTOCOL, LUNA_BAD_REQUEST, LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_work_open(luna_received message, luna_work **out);

//  Frees all and nulls the pointer; NULL is fine.
void luna_work_close(luna_work **work);

//  Valid until luna_work_close.
const luna_msg_work *luna_work_message(const luna_work *work);

//  Maps or takes the payload, checks its hash and that it is this job's, unpacks and
//  checks the job. LUNA_IO for a damaged or missing payload, LUNA_PROTOCOL for another
//  job's, else what luna_job_check says.
LUNA_MUST_USE luna_err luna_work_load(luna_work *work);

//  The job after luna_work_load; valid until luna_work_unload.
const luna_msg_job *luna_work_job(const luna_work *work);

//  Gives payload, job and message bytes back; id, attempt and epoch stay.
void luna_work_unload(luna_work *work);

#endif
