//  hex.h - hexadecimal digits

#ifndef LUNA_COMMON_HEX_H
#define LUNA_COMMON_HEX_H

//  0 to 15, of either case; -1: it is none.
static inline int luna_hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

#endif
