#include "broker/http/json_walk.h"

#include "common/utf8.h"

#include <string.h>

//  A place in the text that is being checked; `fault` is set once, where it stopped.
typedef struct cursor {
    const char *at;
    const char *end;
    const char *fault;
} cursor;

static bool fail(cursor *c, const char *what)
{
    if (!c->fault) c->fault = what;
    return false;
}

static void skip_blanks(cursor *c)
{
    while (c->at < c->end &&
           (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t'))
        c->at++;
}

//  Any byte of `word` that is a quotation mark, a backslash, a control character or
//  not ASCII: high bits of the result. Exact for "is there one at all".
static uint64_t special_bytes(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    const uint64_t quote = word ^ ones * '"', slash = word ^ ones * '\\';
    return ((quote - ones) | (slash - ones) | (word - ones * 0x20) | word) & highs;
}

static void skip_plain(cursor *c)
{
    uint64_t word;
    for (; c->end - c->at >= 8; c->at += 8) {
        memcpy(&word, c->at, sizeof word);
        if (special_bytes(word)) return;
    }
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool skip_escape(cursor *c)
{
    if (c->end - c->at < 2) return fail(c, "a text without its closing mark");
    if (c->at[1] != 'u') {
        if (!c->at[1] || !strchr("\"\\/bfnrt", c->at[1]))
            return fail(c, "an unknown escape");
        c->at += 2;
        return true;
    }
    if (c->end - c->at < 6) return fail(c, "an escape that is cut short");
    for (int i = 2; i < 6; i++)
        if (!is_hex(c->at[i])) return fail(c, "\\u without four hexadecimal digits");
    c->at += 6;
    return true;
}

static bool skip_string(cursor *c)
{
    c->at++;
    for (;;) {
        skip_plain(c);
        if (c->at >= c->end) return fail(c, "a text without its closing mark");
        const unsigned char byte = (unsigned char)*c->at;
        if (byte == '"') break;
        if (byte < 0x20) return fail(c, "a control character in a text");
        if (byte == '\\') {
            if (!skip_escape(c)) return false;
            continue;
        }
        const size_t len = luna_utf8_length(c->at, (size_t)(c->end - c->at));
        if (len == 0) return fail(c, "bytes that are not UTF-8");
        c->at += len;
    }
    c->at++;
    return true;
}

static size_t skip_digits(cursor *c)
{
    const char *start = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
    return (size_t)(c->at - start);
}

static bool skip_char(cursor *c, char a, char b)
{
    if (c->at >= c->end || (*c->at != a && *c->at != b)) return false;
    c->at++;
    return true;
}

static bool skip_number(cursor *c)
{
    skip_char(c, '-', '-');
    const char *first = c->at;
    const size_t digits = skip_digits(c);
    if (digits == 0 || (digits > 1 && *first == '0'))
        return fail(c, "a malformed number");
    if (skip_char(c, '.', '.') && skip_digits(c) == 0)
        return fail(c, "a malformed number");
    if (!skip_char(c, 'e', 'E')) return true;
    skip_char(c, '+', '-');
    return skip_digits(c) ? true : fail(c, "a malformed number");
}

static bool skip_word(cursor *c)
{
    static const char *const words[] = {"true", "false",    "null",
                                        "NaN",  "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const size_t len = strlen(words[i]);
        if ((size_t)(c->end - c->at) < len || memcmp(c->at, words[i], len) != 0) continue;
        c->at += len;
        return true;
    }
    return fail(c, "a value was expected");
}

static bool skip_scalar(cursor *c)
{
    if (c->at >= c->end) return fail(c, "a value was expected, and the text ends");
    if (*c->at == '"') return skip_string(c);
    const bool number = *c->at == '-' || (*c->at >= '0' && *c->at <= '9');
    if (!number || (c->end - c->at > 1 && c->at[0] == '-' && c->at[1] == 'I'))
        return skip_word(c);
    return skip_number(c);
}

static bool skip_key(cursor *c)
{
    skip_blanks(c);
    if (c->at >= c->end || *c->at != '"') return fail(c, "a member's name was expected");
    if (!skip_string(c)) return false;
    skip_blanks(c);
    return skip_char(c, ':', ':') ? true : fail(c, "':' was expected");
}

//  The open objects and arrays, one bit each.
typedef struct nesting {
    uint64_t object[LUNA_JSON_DEPTH_MAX / 64];
    size_t depth;
} nesting;

static bool in_object(const nesting *n)
{
    return n->object[(n->depth - 1) / 64] >> (n->depth - 1) % 64 & 1;
}

static bool push(cursor *c, nesting *n)
{
    if (n->depth == LUNA_JSON_DEPTH_MAX) return fail(c, "nested too deep");
    const uint64_t bit = (uint64_t)1 << n->depth % 64;
    uint64_t *word = &n->object[n->depth / 64];
    *word = *c->at == '{' ? *word | bit : *word & ~bit;
    n->depth++;
    c->at++;
    return true;
}

//  After a value: closes what ends here. True with *more when another value follows.
static bool close_ended(cursor *c, nesting *n, bool *more)
{
    *more = false;
    while (n->depth > 0) {
        const char closing = in_object(n) ? '}' : ']';
        skip_blanks(c);
        if (skip_char(c, ',', ',')) {
            *more = true;
            return in_object(n) ? skip_key(c) : true;
        }
        if (!skip_char(c, closing, closing))
            return fail(c, closing == '}' ? "',' or '}' was expected"
                                          : "',' or ']' was expected");
        n->depth--;
    }
    return true;
}

//  Opens objects and arrays until a scalar or an empty one was passed.
static bool skip_down(cursor *c, nesting *n)
{
    for (;;) {
        skip_blanks(c);
        if (c->at >= c->end || (*c->at != '{' && *c->at != '[')) return skip_scalar(c);
        if (!push(c, n)) return false;
        const char closing = in_object(n) ? '}' : ']';
        skip_blanks(c);
        if (skip_char(c, closing, closing)) {
            n->depth--;
            return true;
        }
        if (in_object(n) && !skip_key(c)) return false;
    }
}

static bool skip_value(cursor *c)
{
    nesting n = {.depth = 0};
    bool more = true;
    while (more)
        if (!skip_down(c, &n) || !close_ended(c, &n, &more)) return false;
    return true;
}

luna_err luna_json_fault(luna_text document, const char *at, const char *what)
{
    size_t line = 1;
    const char *start = document.data;
    for (const char *p = document.data; p < at; p++) {
        if (*p != '\n') continue;
        line++;
        start = p + 1;
    }
    return luna_error(LUNA_BAD_REQUEST, "the JSON is wrong at line %zu, column %zu: %s",
                      line, (size_t)(at - start) + 1, what);
}

luna_err luna_json_check(luna_text document, luna_text *out)
{
    cursor c = {.at = document.data, .end = document.data + document.len};
    skip_blanks(&c);
    const char *start = c.at;
    if (!skip_value(&c)) return luna_json_fault(document, c.at, c.fault);
    const char *stop = c.at;
    skip_blanks(&c);
    if (c.at != c.end)
        return luna_json_fault(document, c.at, "something after the end of the value");
    *out = (luna_text){.data = start, .len = (size_t)(stop - start)};
    return LUNA_OK;
}

luna_err luna_json_enter(luna_text document, luna_text value, luna_json_walk *out)
{
    if (value.len < 2 || (value.data[0] != '{' && value.data[0] != '['))
        return luna_json_fault(document, value.data,
                               "an object or an array was expected");
    *out = (luna_json_walk){.document = document,
                            .at = value.data + 1,
                            .end = value.data + value.len - 1,
                            .object = value.data[0] == '{'};
    return LUNA_OK;
}

//  The document was checked, so only what may stand here does.
bool luna_json_next(luna_json_walk *walk, luna_text *key, luna_text *value)
{
    cursor c = {.at = walk->at, .end = walk->end};
    skip_blanks(&c);
    if (c.at >= c.end) return false;
    if (walk->started) c.at++;  //  the comma
    walk->started = true;
    skip_blanks(&c);
    *key = (luna_text){0};
    if (walk->object) {
        const char *name = c.at + 1;
        if (!skip_string(&c)) return false;
        *key = (luna_text){.data = name, .len = (size_t)(c.at - 1 - name)};
        skip_blanks(&c);
        c.at++;  //  the colon
        skip_blanks(&c);
    }
    const char *start = c.at;
    if (!skip_value(&c)) return false;
    *value = (luna_text){.data = start, .len = (size_t)(c.at - start)};
    walk->at = c.at;
    return true;
}
