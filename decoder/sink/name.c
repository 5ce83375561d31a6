#include "decoder/sink/name.h"

#include "decoder/sink/name_part.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_FILENAME "luna_%time:YYYY-mm-dd_HHMMSS%"
#define UNKNOWN_MODEL    "UnknownModel"
#define COUNTER_BYTES    6             //  "_99999"
#define YEAR_MIN_S       -62135596800  //  0001-01-01
#define YEAR_MAX_S       253402300799  //  9999-12-31

//  A text that grows in place; `full` once something did not fit.
typedef struct buffer {
    char data[2 * LUNA_NAME_FOLDER_BYTES];
    size_t len;
    bool full;
} buffer;

//  What the words of the templates stand for.
typedef struct values {
    luna_text model_path, model_name, model_dir;
    uint64_t index;
    int year, month, day, hour, minute, second;
    buffer model;  //  holds the model's texts
} values;

static void add(buffer *b, const char *data, size_t len)
{
    if (len >= sizeof b->data - b->len) {
        b->full = true;
        return;
    }
    if (len > 0) memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

//  `width` digits at least, zeros before.
static void add_number(buffer *b, uint64_t number, int width)
{
    char digits[24];
    const int len =
        snprintf(digits, sizeof digits, "%0*llu", width, (unsigned long long)number);
    add(b, digits, (size_t)len);
}

//  ---- the words ------------------------------------------------------------------

//  Days since 1970-01-01 to year, month, day in the Gregorian calendar. Years are
//  counted from March, so that the leap day ends a year: 146097 days are 400 years,
//  and (5 * day + 2) / 153 gives the month.
static void split_days(int64_t days, values *v)
{
    const int64_t shifted = days + 719468;  //  since 0000-03-01
    const int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    const int64_t of_era = shifted - era * 146097;
    const int64_t year =
        (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    const int64_t march_month = (5 * of_year + 2) / 153;
    v->day = (int)(of_year - (153 * march_month + 2) / 5 + 1);
    v->month = (int)(march_month < 10 ? march_month + 3 : march_month - 9);
    v->year = (int)(year + era * 400 + (v->month <= 2));
}

static luna_err split_time(const luna_name_request *r, values *v)
{
    const int64_t utc = r->created_ms / 1000 <= YEAR_MAX_S
                            ? (int64_t)(r->created_ms / 1000)
                            : YEAR_MAX_S + 1;
    const bool zone = r->utc_offset_min >= -1440 && r->utc_offset_min <= 1440;
    const int64_t local = utc + (zone ? r->utc_offset_min * 60 : 0);
    if (!zone || local < YEAR_MIN_S || local > YEAR_MAX_S)
        return luna_error(LUNA_BAD_REQUEST,
                          "created_ms or utc_offset_min is no time of the "
                          "years 1 to 9999");
    const int64_t days = (local >= 0 ? local : local - 86399) / 86400;
    const int of_day = (int)(local - days * 86400);
    split_days(days, v);
    v->hour = of_day / 3600;
    v->minute = of_day / 60 % 60;
    v->second = of_day % 60;
    return LUNA_OK;
}

static size_t without_extension(const char *name, size_t len)
{
    static const char *const known[] = {".safetensors", ".ckpt", ".pt",
                                        ".pth",         ".bin",  ".gguf"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t ext = strlen(known[i]);
        if (len >= ext && strncasecmp(name + len - ext, known[i], ext) == 0)
            return len - ext;
    }
    return len;
}

//  "a\b\c.safetensors" gives path "a/b/c", name "c", dir "a/b".
static void split_model(luna_text model, values *v)
{
    add(&v->model, model.data, model.len);
    char *text = v->model.data;
    size_t len = v->model.len;
    for (size_t i = 0; i < len; i++)
        if (text[i] == '\\') text[i] = '/';
    while (len > 0 && text[len - 1] == '/') len--;
    for (; len > 0 && text[0] == '/'; text++) len--;
    size_t name = len;
    while (name > 0 && text[name - 1] != '/') name--;
    const size_t end = name + without_extension(text + name, len - name);
    v->model_path = (luna_text){text, end};
    v->model_name =
        end > name ? (luna_text){text + name, end - name} : luna_text_of(UNKNOWN_MODEL);
    v->model_dir = (luna_text){text, name > 0 ? name - 1 : 0};
}

//  ---- templates ------------------------------------------------------------------

static void add_time(buffer *b, luna_text format, const values *v)
{
    const struct {
        const char *word;
        int value;
    } words[] = {{"YYYY", v->year}, {"mm", v->month},  {"dd", v->day},
                 {"HH", v->hour},   {"MM", v->minute}, {"SS", v->second}};
    size_t at = 0;
    while (at < format.len) {
        size_t len = 1;
        for (size_t i = 0; i < sizeof words / sizeof *words && len == 1; i++) {
            const size_t want = strlen(words[i].word);
            if (want > format.len - at) continue;
            if (memcmp(format.data + at, words[i].word, want) != 0) continue;
            add_number(b, (uint64_t)words[i].value, (int)want);
            len = want;
        }
        if (len == 1) add(b, format.data + at, 1);
        at += len;
    }
}

//  Adds what the word between two percent signs stands for; false when it is none.
static bool add_word(buffer *b, luna_text word, const values *v)
{
    static const char time[] = "time:";
    const size_t skip = sizeof time - 1;
    if (word.len > skip && memcmp(word.data, time, skip) == 0)
        add_time(b, (luna_text){word.data + skip, word.len - skip}, v);
    else if (luna_text_is(word, "model_path"))
        add(b, v->model_path.data, v->model_path.len);
    else if (luna_text_is(word, "model_name"))
        add(b, v->model_name.data, v->model_name.len);
    else if (luna_text_is(word, "model_dir"))
        add(b, v->model_dir.data, v->model_dir.len);
    else if (luna_text_is(word, "index"))
        add_number(b, v->index, 1);
    else
        return false;
    return true;
}

static luna_err expand(luna_text source, const values *v, buffer *out)
{
    size_t at = 0;
    while (at < source.len) {
        const char *here = source.data + at;
        const char *end =
            *here == '%' ? memchr(here + 1, '%', source.len - at - 1) : NULL;
        const size_t len = end ? (size_t)(end - here) - 1 : 0;
        if (end && add_word(out, (luna_text){here + 1, len}, v)) {
            at += len + 2;
        } else {
            add(out, here, 1);
            at++;
        }
    }
    for (size_t i = 0; i < out->len; i++)
        if (out->data[i] == '\\') out->data[i] = '/';
    while (out->len > 0 && out->data[out->len - 1] == '/') out->data[--out->len] = '\0';
    if (!out->full) return LUNA_OK;
    return luna_error(LUNA_TOO_LARGE, "the template %.60s... gives more than %zu bytes",
                      source.len < 60 ? "" : source.data, sizeof out->data);
}

//  ---- parts ------------------------------------------------------------------------

static luna_err check_relative(const char *path)
{
    const bool letter = (path[0] | 0x20) >= 'a' && (path[0] | 0x20) <= 'z';
    if (path[0] != '/' && !(letter && path[1] == ':')) return LUNA_OK;
    return luna_error(
        LUNA_FORBIDDEN,
        "the template gives \"%.100s\", a path from the root; give one below "
        "the output folder",
        path);
}

static luna_err add_folder(luna_name *name, const char *part, size_t len)
{
    char clean[LUNA_NAME_PART_BYTES];
    const size_t used = strlen(name->folder);
    LUNA_TRY(luna_name_part(part, len, clean));
    const size_t more = strlen(clean) + (used > 0);
    if (more == 0 || clean[0] == '\0') return LUNA_OK;
    if (used + more >= sizeof name->folder)
        return luna_error(LUNA_TOO_LARGE,
                          "the folders %.60s... are longer than %zu bytes", name->folder,
                          sizeof name->folder - 1);
    if (used > 0) name->folder[used] = '/';
    memcpy(name->folder + used + (used > 0), clean, strlen(clean) + 1);
    return LUNA_OK;
}

//  Adds the folders of `path`, its last part too unless `last` takes that.
static luna_err add_folders(luna_name *name, const char *path, const char **last)
{
    const char *end;
    while ((end = strchr(path, '/'))) {
        if (luna_name_is_up(path, (size_t)(end - path))) break;
        LUNA_TRY(add_folder(name, path, (size_t)(end - path)));
        path = end + 1;
    }
    if (end || luna_name_is_up(path, strlen(path)))
        return luna_error(LUNA_FORBIDDEN,
                          "a template gives \"..\"; images stay below the output folder");
    if (!last) return add_folder(name, path, strlen(path));
    *last = path;
    return LUNA_OK;
}

//  An affix is one part: it makes no folders of its own.
static void flatten(luna_text affix, buffer *out)
{
    add(out, affix.data, affix.len);
    for (size_t i = 0; i < out->len; i++)
        if (out->data[i] == '/' || out->data[i] == '\\') out->data[i] = '_';
    if (luna_name_is_up(out->data, out->len)) out->data[0] = '_';
}

static luna_err make_stem(const luna_name_request *r, const char *base,
                          const buffer *affix, luna_name *name)
{
    buffer stem = {0};
    add(&stem, base, strlen(base));
    if (affix->len > 0) add(&stem, "_", 1);
    add(&stem, affix->data, affix->len);
    if (r->count > 1) add(&stem, "_", 1);
    if (r->count > 1) add_number(&stem, r->index, 1);
    if (!stem.full) LUNA_TRY(luna_name_part(stem.data, stem.len, name->stem));
    const size_t rest = COUNTER_BYTES + 1 + strlen(name->ext);
    if (!stem.full && strlen(name->stem) + rest < LUNA_NAME_PART_BYTES) return LUNA_OK;
    return luna_error(LUNA_TOO_LARGE,
                      "the file name %.60s... has %zu bytes; with counter and extension "
                      "at most %d fit",
                      stem.data, stem.len, LUNA_NAME_PART_BYTES - 1);
}

static luna_err make_filename(const luna_name_request *r, const values *v, buffer *out)
{
    LUNA_TRY(expand(r->filename, v, out));
    LUNA_TRY(check_relative(out->data));
    if (out->len > 0) return LUNA_OK;
    return expand(luna_text_of(DEFAULT_FILENAME), v, out);
}

//  ---- public -----------------------------------------------------------------------

static luna_err check_request(const luna_name_request *r)
{
    const luna_text texts[] = {r->save_path, r->filename, r->affix, r->model_name};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].len > 0 && memchr(texts[i].data, '\0', texts[i].len))
            return luna_error(LUNA_BAD_REQUEST, "a template, affix or name holds a NUL");
    const size_t len = strnlen(r->ext, LUNA_NAME_EXT_BYTES);
    if (len > 0 && len < LUNA_NAME_EXT_BYTES &&
        strspn(r->ext, "abcdefghijklmnopqrstuvwxyz") == len)
        return LUNA_OK;
    return luna_error(LUNA_BAD_REQUEST, "an extension has 1 to %d letters",
                      LUNA_NAME_EXT_BYTES - 1);
}

luna_err luna_name_make(const luna_name_request *request, luna_name *out)
{
    values v = {.index = request->filename_index};
    buffer path = {0}, affix = {0}, filename = {0};
    luna_name name = {0};
    const char *base = "";
    LUNA_TRY(check_request(request));
    LUNA_TRY(split_time(request, &v));
    split_model(request->model_name, &v);
    flatten(request->affix, &affix);
    if (v.model.full || affix.full)
        return luna_error(LUNA_TOO_LARGE, "the model name or the affix is too long");
    memcpy(name.ext, request->ext, strlen(request->ext) + 1);
    LUNA_TRY(expand(request->save_path, &v, &path));
    LUNA_TRY(check_relative(path.data));
    LUNA_TRY(add_folders(&name, path.data, NULL));
    if (request->subdir) LUNA_TRY(add_folder(&name, affix.data, affix.len));
    LUNA_TRY(make_filename(request, &v, &filename));
    LUNA_TRY(add_folders(&name, filename.data, &base));
    LUNA_TRY(make_stem(request, base, &affix, &name));
    *out = name;
    return LUNA_OK;
}

void luna_name_candidate(const luna_name *name, unsigned k,
                         char out[LUNA_NAME_PART_BYTES])
{
    //  luna_name_make left room for a counter, so nothing is cut at the copy.
    char text[LUNA_NAME_PART_BYTES + LUNA_NAME_EXT_BYTES + 16];
    if (k == 0)
        snprintf(text, sizeof text, "%s.%s", name->stem, name->ext);
    else
        snprintf(text, sizeof text, "%s_%05u.%s", name->stem, k, name->ext);
    memcpy(out, text, LUNA_NAME_PART_BYTES);
    out[LUNA_NAME_PART_BYTES - 1] = '\0';
}
