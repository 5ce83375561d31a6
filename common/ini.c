#include "common/ini.h"

#include "common/file.h"

#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *section;  //  into the text
    luna_ini_entry *entry;
    void *context;
} reader;

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

//  Without the blanks around it; the text is cut in place.
static char *trim(char *text)
{
    while (is_blank(*text)) text++;
    size_t len = strlen(text);
    while (len > 0 && is_blank(text[len - 1])) len--;
    text[len] = '\0';
    return text;
}

//  A ';' at the start or after a blank begins a comment.
static void cut_comment(char *text)
{
    for (size_t i = 0; text[i]; i++) {
        if (text[i] != ';' || (i > 0 && !is_blank(text[i - 1]))) continue;
        text[i] = '\0';
        return;
    }
}

static luna_err take_section(reader *r, char *line)
{
    char *end = strchr(line, ']');
    if (!end) return luna_error(LUNA_CONFIG, "a section without its ']'");
    *end = '\0';
    cut_comment(end + 1);
    if (*trim(end + 1))
        return luna_error(LUNA_CONFIG, "something after the section's ']'");
    r->section = trim(line + 1);
    return LUNA_OK;
}

static luna_err take_line(reader *r, char *line)
{
    line = trim(line);
    if (*line == '\0' || *line == ';' || *line == '#') return LUNA_OK;
    if (*line == '[') return take_section(r, line);
    char *value = strpbrk(line, "=:");
    if (!value) return luna_error(LUNA_CONFIG, "not a 'key = value' line");
    *value++ = '\0';
    cut_comment(value);
    return r->entry(r->context, r->section, trim(line), trim(value));
}

//  The file's text is cut into lines in place.
static luna_err take_text(reader *r, const char *path, char *text)
{
    for (size_t line = 1; text; line++) {
        char *end = strchr(text, '\n');
        if (end) *end++ = '\0';
        const luna_err err = take_line(r, text);
        if (err == LUNA_NO_MEMORY) return err;
        if (err != LUNA_OK)
            return luna_error(LUNA_CONFIG, "%s:%zu: %s", path, line, luna_error_text());
        text = end;
    }
    return LUNA_OK;
}

static luna_err as_setting(luna_err err)
{
    return err == LUNA_IO ? LUNA_NOT_FOUND : err == LUNA_TOO_LARGE ? LUNA_CONFIG : err;
}

luna_err luna_ini_read(const char *path, luna_ini_entry *entry, void *context)
{
    static const char mark[] = "\xef\xbb\xbf";
    char *text;
    size_t len;
    reader r = {.section = "", .entry = entry, .context = context};
    LUNA_TRY(as_setting(luna_file_read(path, LUNA_INI_BYTES, &text, &len)));
    const size_t skip = strncmp(text, mark, 3) == 0 ? 3 : 0;
    const luna_err err = strlen(text) == len
                             ? take_text(&r, path, text + skip)
                             : luna_error(LUNA_CONFIG, "%s holds a NUL", path);
    free(text);
    return err;
}
