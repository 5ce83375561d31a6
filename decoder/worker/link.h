//  link.h - the broker's link: registration, work in, reports out
//
//      away --hello--> greeted --welcome, ready--> up --silence, new epoch, error--> away
//
//  It never gives up: without a broker it says hello again every few seconds while
//  what is in hand is decoded on. A new hello lists the attempts in hand, so that the
//  broker takes them over as they are, and everything is told again.
//
//  The link belongs to one thread, which also waits for the signals: the main one.
//  It moves small messages only; payloads are mapped and checked by the decode thread.

#ifndef LUNA_WORKER_LINK_H
#define LUNA_WORKER_LINK_H

#include "common/address.h"
#include "decoder/worker/attempts.h"
#include "decoder/worker/pipeline.h"
#include "proto/formats.h"

typedef struct luna_link_options {
    const char *control;  //  the broker's address as it was given; all are borrowed
    const luna_address *broker;
    const char *name;
    const char *device;
    const luna_msg_vae *vaes;  //  names to announce
    size_t vae_count;
    luna_formats formats;   //  that it writes
    uint64_t credit_jobs;   //  jobs in hand at a time
    uint64_t credit_bytes;  //  of their payloads
    int64_t stop_ms;        //  time to finish the image in hand after a stop
    int64_t hang_ms;        //  a decode without a step for so long has hung; 0: never
    int signal_fd;          //  a signalfd: any signal stops, a second one at once
    luna_attempts *attempts;
    luna_pipeline *pipeline;
} luna_link_options;

typedef enum luna_link_end {
    LUNA_LINK_STOPPED,  //  the pipeline has ended, everything is told
    LUNA_LINK_HURRIED,  //  time is up or a second signal came: threads still run
    LUNA_LINK_BROKEN    //  the device failed, and the pipeline has ended, or it hangs
} luna_link_end;

//  Serves until it is told to stop, by a signal or by the broker, and has said bye.
//  LUNA_CONFIG for an endpoint that cannot be; LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_link_run(const luna_link_options *options,
                                     luna_link_end *out);

#endif
