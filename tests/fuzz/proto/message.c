//  message.c - any message as a struct: what the encoder takes, every reader takes
//
//  The bytes choose a type and fill its struct, field by field over the schema, within
//  and beyond the limits. The encoder either refuses with a sentence, and then its size
//  is 0, or gives bytes that read as the same message.

#include "fuzz/proto/maker.h"

static void check_refused(luna_msg_type type, const void *message)
{
    void *bytes = NULL;
    size_t len = 0;
    const luna_err err = luna_msg_pack(type, message, &bytes, &len);
    CHECK(err == LUNA_BAD_REQUEST && !bytes);
    fuzz_check_error(err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    maker m = {.from = {.at = data, .left = len}};
    any_message message;
    memset(&message, 0, sizeof message);
    const luna_msg_type type = (luna_msg_type)fuzz_below(&m.from, LUNA_MSG_COUNT);
    make_fields(&m, luna_msg_schema(type), &message);
    if (luna_msg_size(type, &message) == 0)
        check_refused(type, &message);
    else
        check_round_trip(type, &message);
    luna_arena_free(&m.memory);
    return 0;
}
