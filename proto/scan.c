#include "proto/scan.h"

#include <stdint.h>

typedef struct scan {
    const uint8_t *at;
    const uint8_t *end;
    uint64_t open[LUNA_SCAN_MAX_DEPTH];  //  values still to come, by level
    int depth;
    uint64_t values;
} scan;

static uint64_t big_endian(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value = value << 8 | at[i];
    return value;
}

//  What a leading byte says: `head` length bytes, then `fixed` bytes of data, or a
//  length (text, bytes) or a count (array, map) in the head itself.
typedef struct lead {
    int head;
    uint64_t fixed;
    int items;     //  0: no container; 1: array; 2: map
    bool counted;  //  the head is a length or count
    bool bad;
} lead;

//  msgpack specification, "Formats": 0xc0 to 0xdf.
static const lead lead_table[32] = {
    [0x00] = {0, 0, 0, false, false},  // nil
    [0x01] = {0, 0, 0, false, true},   // never used
    [0x02] = {0, 0, 0, false, false},  // false
    [0x03] = {0, 0, 0, false, false},  // true
    [0x04] = {1, 0, 0, true, false},   // bin 8
    [0x05] = {2, 0, 0, true, false},   // bin 16
    [0x06] = {4, 0, 0, true, false},   // bin 32
    [0x07] = {0, 0, 0, false, true},   // ext: not part of Luna's wire
    [0x08] = {0, 0, 0, false, true},  [0x09] = {0, 0, 0, false, true},
    [0x0a] = {0, 4, 0, false, false},  // float 32
    [0x0b] = {0, 8, 0, false, false},  // float 64
    [0x0c] = {0, 1, 0, false, false},  // uint 8
    [0x0d] = {0, 2, 0, false, false}, [0x0e] = {0, 4, 0, false, false},
    [0x0f] = {0, 8, 0, false, false}, [0x10] = {0, 1, 0, false, false},  // int 8
    [0x11] = {0, 2, 0, false, false}, [0x12] = {0, 4, 0, false, false},
    [0x13] = {0, 8, 0, false, false}, [0x14] = {0, 0, 0, false, true},  // fixext
    [0x15] = {0, 0, 0, false, true},  [0x16] = {0, 0, 0, false, true},
    [0x17] = {0, 0, 0, false, true},  [0x18] = {0, 0, 0, false, true},
    [0x19] = {1, 0, 0, true, false},  // str 8
    [0x1a] = {2, 0, 0, true, false},  [0x1b] = {4, 0, 0, true, false},
    [0x1c] = {2, 0, 1, true, false},                                    // array 16
    [0x1d] = {4, 0, 1, true, false},  [0x1e] = {2, 0, 2, true, false},  // map 16
    [0x1f] = {4, 0, 2, true, false},
};

static luna_err malformed(const char *what)
{
    return luna_error(LUNA_PROTOCOL, "the message is not valid msgpack: %s", what);
}

//  Opens a container of `count` values; each takes at least one byte.
static luna_err push(scan *s, uint64_t count)
{
    if (count > (uint64_t)(s->end - s->at)) return malformed("a count is past the end");
    s->values += count;
    if (s->values > LUNA_SCAN_MAX_VALUES) return malformed("too many values");
    if (s->depth == LUNA_SCAN_MAX_DEPTH) return malformed("nested too deep");
    s->open[s->depth++] = count;
    return LUNA_OK;
}

static luna_err skip(scan *s, uint64_t bytes)
{
    if (bytes > (uint64_t)(s->end - s->at)) return malformed("it is cut short");
    s->at += bytes;
    return LUNA_OK;
}

//  One value's head, and its data unless it is a container.
static luna_err step(scan *s)
{
    if (s->at == s->end) return malformed("it is cut short");
    const uint8_t b = *s->at++;
    if (b <= 0x7f || b >= 0xe0) return LUNA_OK;             // fixint
    if (b <= 0x8f) return push(s, (uint64_t)(b & 15) * 2);  // fixmap
    if (b <= 0x9f) return push(s, b & 15);                  // fixarray
    if (b <= 0xbf) return skip(s, b & 31);                  // fixstr
    const lead l = lead_table[b - 0xc0];
    if (l.bad) return malformed("an extension or reserved type");
    if (!l.counted) return skip(s, l.fixed);
    const uint8_t *head = s->at;
    LUNA_TRY(skip(s, (uint64_t)l.head));
    const uint64_t count = big_endian(head, l.head);
    return l.items ? push(s, count * (uint64_t)l.items) : skip(s, count);
}

luna_err luna_scan(const void *data, size_t len)
{
    scan s = {.at = data, .end = (const uint8_t *)data + len};
    LUNA_TRY(push(&s, len > 0 ? 1 : 0));
    while (s.depth > 0) {
        if (s.open[s.depth - 1] == 0) {
            s.depth--;
            continue;
        }
        s.open[s.depth - 1]--;
        LUNA_TRY(step(&s));
    }
    if (len == 0) return malformed("it is empty");
    return s.at == s.end ? LUNA_OK : malformed("bytes follow the map");
}
