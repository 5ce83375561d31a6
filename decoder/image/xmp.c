#include "decoder/image/xmp.h"

#include <string.h>

//  Read-only: without the padding that editors in place would want.
static const char head[] =
    "<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
    "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
    "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
    "<rdf:Description rdf:about=\"\" xmlns:luna=\"" LUNA_XMP_NAMESPACE "\">\n";
static const char tail[] = "</rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n";
static const char trailer[] = "<?xpacket end=\"r\"?>";

//  "<luna:KEY>", "</luna:KEY>" and a line end.
#define PROPERTY_BYTES (6 + 1 + 7 + 1 + 1)

static bool is_name(const char *keyword)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    const bool digit = keyword[0] >= '0' && keyword[0] <= '9';
    return keyword[0] && !digit && keyword[strspn(keyword, letters)] == '\0';
}

//  XML 1.0, production 2; U+FFFE and U+FFFF are EF BF BE and EF BF BF.
static bool is_character(const char *at, size_t left)
{
    const uint8_t first = (uint8_t)at[0];
    if (first < 0x20) return first == '\t' || first == '\n' || first == '\r';
    if (first != 0xEF || left < 3 || (uint8_t)at[1] != 0xBF) return true;
    return (uint8_t)at[2] < 0xBE;
}

bool luna_xmp_can_hold(const luna_image_text *text)
{
    if (!is_name(text->keyword)) return false;
    for (size_t i = 0; i < text->len; i++)
        if (!is_character(text->text + i, text->len - i)) return false;
    return true;
}

//  A CR would be read as a line feed; a quotation mark needs nothing in an element.
static const char *escape_of(char c)
{
    switch (c) {
        case '&':
            return "&amp;";
        case '<':
            return "&lt;";
        case '>':
            return "&gt;";
        case '\r':
            return "&#xD;";
        default:
            return NULL;
    }
}

size_t luna_xmp_text_bytes(const luna_image_text *text)
{
    size_t bytes = PROPERTY_BYTES + 2 * strlen(text->keyword) + text->len;
    for (size_t i = 0; i < text->len; i++) {
        const char *escape = escape_of(text->text[i]);
        if (escape) bytes += strlen(escape) - 1;
    }
    return bytes;
}

size_t luna_xmp_frame_bytes(void)
{
    return sizeof head - 1 + sizeof tail - 1 + 1 + sizeof trailer - 1;
}

static void put_escaped(luna_bytes *out, const char *text, size_t len)
{
    size_t from = 0;
    for (size_t i = 0; i < len; i++) {
        const char *escape = escape_of(text[i]);
        if (!escape) continue;
        luna_bytes_put(out, text + from, i - from);
        luna_bytes_text(out, escape);
        from = i + 1;
    }
    luna_bytes_put(out, text + from, len - from);
}

static void put_property(luna_bytes *out, const luna_image_text *text)
{
    luna_bytes_text(out, "<luna:");
    luna_bytes_text(out, text->keyword);
    luna_bytes_text(out, ">");
    put_escaped(out, text->text, text->len);
    luna_bytes_text(out, "</luna:");
    luna_bytes_text(out, text->keyword);
    luna_bytes_text(out, ">\n");
}

void luna_xmp_write(const luna_image_text *texts, const bool *chosen, size_t count,
                    luna_bytes *out)
{
    const size_t from = out->len;
    luna_bytes_text(out, head);
    for (size_t i = 0; i < count; i++)
        if (chosen[i]) put_property(out, &texts[i]);
    luna_bytes_text(out, tail);
    luna_bytes_put(out, "\n", (out->len - from + sizeof trailer - 1) & 1);
    luna_bytes_text(out, trailer);
}
