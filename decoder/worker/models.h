//  models.h - the VAE engines in memory, and the thread that loads them
//
//  The engines used last stay, up to a count and a number of bytes. An engine is asked
//  for and held; one that is not in memory is loaded by a thread of its own, so that who
//  asked can work on with the others meanwhile:
//
//      (asked) --its turn, room--> loading --> ready --evicted--> (gone)
//                                     \--> failed --last release--> (gone)
//
//  Room is made before a load begins, by closing the engines used longest ago that nobody
//  holds: count and bytes are kept during a load too. When all are held, the load waits
//  for the next that is released, which is then closed though it was the latest; a single
//  model over the limits is let in alone. Loads go one after the other, in the order they
//  were asked for; one that nobody waits for any more is given up. A file that was
//  replaced since it was loaded is loaded anew.
//
//  Thread-safe, but for the engine itself: one thread at a time, while it is held.

#ifndef LUNA_WORKER_MODELS_H
#define LUNA_WORKER_MODELS_H

#include "decoder/worker/file_key.h"
#include "decoder/worker/registry.h"

typedef struct luna_models_options {
    const char *device;           //  as in luna_vae_options; must outlive the models
    int threads;                  //  CPU threads of an engine; 0: the library's choice
    size_t memory_limit_bytes;    //  of one decode
    size_t count_max;             //  engines in memory, at least 1
    uint64_t bytes_max;           //  their weights, 4 bytes a parameter
    void (*step)(void *context);  //  as in luna_vae_options, also while loading; or NULL
    //  Called by the loading thread after a load, whatever came of it; or NULL.
    void (*loaded)(void *context);
    void *context;  //  of both
} luna_models_options;

typedef struct luna_models luna_models;
typedef struct luna_engine luna_engine;

//  Starts the thread. LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_models_new(const luna_models_options *options,
                                       luna_models **out);

//  Waits for the thread, which gives a load under way up, and closes every engine; all
//  must have been released. Nulls the pointer; NULL is fine.
void luna_models_free(luna_models **models);

//  Holds the engine of an entry, and has it loaded when it is not in memory: that is what
//  luna_engine_result tells. Never waits. LUNA_NOT_FOUND: no such file; LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_models_ask(luna_models *models, const luna_vae_entry *entry,
                                       luna_engine **out);

//  Not ready yet, and not failed.
bool luna_engine_is_loading(const luna_engine *engine);

//  LUNA_OK when it is ready, LUNA_BUSY while it is loading, else why it never will be:
//  what luna_vae_open said, or LUNA_IO when the file was changed meanwhile; but a device
//  that was there and is no more has failed: LUNA_DEVICE. Never waits.
LUNA_MUST_USE luna_err luna_engine_result(const luna_engine *engine);

//  The engine, when it is ready; valid until the release.
luna_vae *luna_engine_vae(const luna_engine *engine);

//  Which file it was loaded from; valid until the release.
const luna_file_key *luna_engine_file(const luna_engine *engine);

//  Closes every engine that nobody holds, to give memory back; false when there was none.
bool luna_models_spare(luna_models *models);

//  Ends a hold and nulls the pointer; NULL is fine.
void luna_engine_release(luna_engine **engine);

#endif
