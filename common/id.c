#include "common/id.h"
#include "common/hex.h"

#include "common/clock.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

//  The kernel's generator cannot fail for 16 bytes once the machine has booted;
//  before that, the clocks still keep ids of one machine apart.
static void fill_random(uint8_t *out, size_t len)
{
    if (getrandom(out, len, 0) == (ssize_t)len) return;
    const int64_t seed = luna_now_ns();
    for (size_t i = 0; i < len; i++) out[i] = (uint8_t)(seed >> (i % 8 * 8)) ^ (uint8_t)i;
}

luna_id luna_id_new(void)
{
    luna_id id;
    const int64_t ms = luna_wall_ms();
    fill_random(id.byte, sizeof id.byte);
    for (int i = 0; i < 6; i++) id.byte[i] = (uint8_t)(ms >> (40 - 8 * i));
    id.byte[6] = (uint8_t)(0x70 | (id.byte[6] & 0x0f));
    id.byte[8] = (uint8_t)(0x80 | (id.byte[8] & 0x3f));
    return id;
}

static bool dash_after(int byte)
{
    return byte == 3 || byte == 5 || byte == 7 || byte == 9;
}

void luna_id_text(const luna_id *id, char text[LUNA_ID_TEXT_BYTES])
{
    static const char digit[] = "0123456789abcdef";
    for (int i = 0; i < LUNA_ID_BYTES; i++) {
        *text++ = digit[id->byte[i] >> 4];
        *text++ = digit[id->byte[i] & 15];
        if (dash_after(i)) *text++ = '-';
    }
    *text = '\0';
}

luna_err luna_id_parse(const char *text, luna_id *out)
{
    luna_id id;
    const char *at = text;
    for (int i = 0; i < LUNA_ID_BYTES; i++) {
        const int high = luna_hex_value(at[0]);
        const int low = high < 0 ? -1 : luna_hex_value(at[1]);
        if (low < 0) return luna_error(LUNA_BAD_REQUEST, "'%.40s' is not a UUID", text);
        id.byte[i] = (uint8_t)(high << 4 | low);
        at += 2;
        if (dash_after(i) && *at++ != '-')
            return luna_error(LUNA_BAD_REQUEST, "'%.40s' is not a UUID", text);
    }
    if (*at) return luna_error(LUNA_BAD_REQUEST, "'%.40s' is not a UUID", text);
    *out = id;
    return LUNA_OK;
}

int luna_id_compare(const luna_id *a, const luna_id *b)
{
    return memcmp(a->byte, b->byte, LUNA_ID_BYTES);
}

bool luna_id_is_nil(const luna_id *id)
{
    static const luna_id nil;
    return luna_id_compare(id, &nil) == 0;
}
