//  unsent.c - how much waits in ZeroMQ for peers that do not read
//
//  ZeroMQ bounds what waits for a peer by messages, not by bytes, and an answer may have
//  megabytes. It tells when it is done with a message by freeing it; so each large one
//  is counted from the sending to the freeing.

#include "broker/loop.h"
#include "common/handover.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    SMALL_BYTES = 4096,           //  a thousand of them are no matter
    UNSENT_MAX_BYTES = 16 << 20,  //  for one peer, before the last message
    SLOTS = 1024                  //  peers by hash; two in one slot share it
};

//  Static: ZeroMQ frees the last ones when the broker is gone.
static atomic_size_t unsent[SLOTS];

typedef struct counted {
    atomic_size_t *slot;
    size_t len;
} counted;

static atomic_size_t *slot_of(const luna_peer *peer)
{
    uint32_t hash = 2166136261u;  //  FNV-1a
    for (size_t i = 0; i < peer->len; i++) hash = (hash ^ peer->id[i]) * 16777619u;
    return &unsent[hash % SLOTS];
}

bool luna_unsent_full(const luna_peer *peer)
{
    return atomic_load(slot_of(peer)) >= UNSENT_MAX_BYTES;
}

//  In a thread of ZeroMQ's, or of whom it gave the message to.
static void release(void *bytes, void *hint)
{
    LUNA_TAKE_OVER(bytes);
    counted *note = hint;
    if (note) atomic_fetch_sub(note->slot, note->len);
    free(note);
    free(bytes);
}

static counted *count(const luna_peer *peer, size_t len)
{
    counted *note = len > SMALL_BYTES ? malloc(sizeof *note) : NULL;
    if (!note) return NULL;
    *note = (counted){slot_of(peer), len};
    atomic_fetch_add(note->slot, len);
    return note;
}

//  The socket that knows the peer has its routing id then.
static void *start(void *socket, void *other, const luna_peer *peer)
{
    const int flags = ZMQ_SNDMORE | ZMQ_DONTWAIT;
    if (zmq_send(socket, peer->id, peer->len, flags) >= 0) return socket;
    if (!other || zmq_errno() != EHOSTUNREACH) return NULL;
    return zmq_send(other, peer->id, peer->len, flags) >= 0 ? other : NULL;
}

bool luna_unsent_send(void *socket, void *other, const luna_peer *peer, void *bytes,
                      size_t len)
{
    zmq_msg_t message;
    counted *note = count(peer, len);
    if (zmq_msg_init_data(&message, bytes, len, release, note) != 0) {
        release(bytes, note);
        return false;
    }
    LUNA_HAND_OVER(bytes);
    void *to = start(socket, other, peer);
    if (to && zmq_msg_send(&message, to, ZMQ_DONTWAIT) >= 0) return true;
    zmq_msg_close(&message);
    return false;
}
