#include "decoder/sink/name_part.h"

#include "common/utf8.h"

#include <string.h>

bool luna_name_is_up(const char *part, size_t len)
{
    size_t dots = 0;
    while (dots < len && part[dots] == '.') dots++;
    if (dots < 2) return false;
    for (size_t i = dots; i < len; i++)
        if (part[i] != '.' && part[i] != ' ') return false;
    return true;
}

//  Controls, also U+0080 to U+009F (C2 80 to C2 9F), and what Windows refuses.
static bool is_refused(const char *at, size_t len)
{
    const uint8_t first = (uint8_t)at[0];
    if (at[0] == LUNA_NAME_COUNTER) return false;
    if (len == 2 && first == 0xC2) return (uint8_t)at[1] < 0xA0;
    return len == 1 && (first < 0x20 || first == 0x7F || strchr("<>:\"|?*/\\", at[0]));
}

static luna_err copy_clean(const char *part, size_t len, char out[LUNA_NAME_PART_BYTES])
{
    size_t at = 0, used = 0;
    while (at < len) {
        const size_t n = luna_utf8_length(part + at, len - at);
        const bool good = n > 0 && !is_refused(part + at, n);
        const size_t bytes = good ? n : 1;
        //  One byte stays free for the '_' before a device's name.
        if (used + bytes > LUNA_NAME_PART_BYTES - 2)
            return luna_error(LUNA_TOO_LARGE,
                              "the name %.60s... has %zu bytes; at most %d fit", out, len,
                              LUNA_NAME_PART_BYTES - 2);
        memcpy(out + used, good ? part + at : "_", bytes);
        used += bytes;
        out[used] = '\0';
        at += n > 0 ? n : 1;
    }
    return LUNA_OK;
}

//  CON, PRN, AUX, NUL, CONIN$, CONOUT$, COM0-9 and LPT0-9 (also with superscript 1 to
//  3: C2 B9, B2, B3) are devices on Windows whatever comes after a dot.
static bool is_device(const char *name)
{
    static const char *const words[] = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"};
    size_t len = strcspn(name, ".");
    while (len > 0 && name[len - 1] == ' ') len--;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == len && strncasecmp(name, words[i], len) == 0) return true;
    if (strncasecmp(name, "COM", 3) != 0 && strncasecmp(name, "LPT", 3) != 0)
        return false;
    if (len == 4) return name[3] >= '0' && name[3] <= '9';
    return len == 5 && (uint8_t)name[3] == 0xC2 && strchr("\xB9\xB2\xB3", name[4]);
}

luna_err luna_name_part(const char *part, size_t len, char out[LUNA_NAME_PART_BYTES])
{
    out[0] = '\0';
    if (len == 1 && part[0] == '.') return LUNA_OK;
    LUNA_TRY(copy_clean(part, len, out));
    if (out[0] == '.') out[0] = '_';
    for (size_t end = strlen(out); end > 0; end--) {
        if (out[end - 1] != '.' && out[end - 1] != ' ') break;
        out[end - 1] = '_';
    }
    if (is_device(out)) {
        memmove(out + 1, out, strlen(out) + 1);
        out[0] = '_';
    }
    return LUNA_OK;
}
