#include "broker/http/parcel.h"

#include "common/handover.h"

#include <errno.h>
#include <stdlib.h>
#include <zmq.h>

struct luna_parcel {
    luna_held *held;
    size_t len;
    size_t counted;  //  bytes taken from `held`
    uint8_t bytes[];
};

luna_err luna_parcel_pack(luna_held *held, luna_msg_type type, const void *msg,
                          luna_parcel **out)
{
    const size_t room = luna_msg_size(type, msg);
    size_t whole;
    if (__builtin_add_overflow(room, sizeof(luna_parcel), &whole))
        return luna_error(LUNA_TOO_LARGE, "the message is too large");
    if (!luna_held_take(held, whole))
        return luna_error(LUNA_BUSY, "no room for a message of %zu bytes now; try later",
                          room);
    luna_parcel *parcel = malloc(whole);
    if (!parcel) {
        luna_held_give(held, whole);
        return luna_error(LUNA_NO_MEMORY, "no memory for a message of %zu bytes", room);
    }
    parcel->held = luna_held_share(held);
    parcel->counted = whole;
    const luna_err err = luna_msg_encode(type, msg, parcel->bytes, room, &parcel->len);
    if (err == LUNA_OK)
        *out = parcel;
    else
        luna_parcel_free(parcel);
    return err;
}

void luna_parcel_free(luna_parcel *parcel)
{
    if (!parcel) return;
    luna_held_give(parcel->held, parcel->counted);
    luna_held_drop(parcel->held);
    free(parcel);
}

static void free_sent(void *data, void *hint)
{
    (void)data;
    LUNA_TAKE_OVER(hint);
    luna_parcel_free(hint);
}

luna_err luna_parcel_send(luna_parcel **parcel, void *socket)
{
    zmq_msg_t msg;
    luna_parcel *taken = *parcel;
    *parcel = NULL;
    if (zmq_msg_init_data(&msg, taken->bytes, taken->len, free_sent, taken) != 0) {
        luna_parcel_free(taken);
        return luna_error(LUNA_NO_MEMORY, "no memory to send a message");
    }
    LUNA_HAND_OVER(taken);
    LUNA_HAND_OVER(taken->bytes);
    if (zmq_msg_send(&msg, socket, ZMQ_DONTWAIT) >= 0) return LUNA_OK;
    const int code = errno;
    zmq_msg_close(&msg);
    if (code == EAGAIN)
        return luna_error(LUNA_BUSY, "the broker does not keep up; try again later");
    return luna_error(LUNA_UNAVAILABLE, "the broker cannot be reached: %s",
                      zmq_strerror(code));
}
