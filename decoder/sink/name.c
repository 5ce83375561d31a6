#include "decoder/sink/name.h"

#include "decoder/sink/name_part.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_FILENAME "luna_%time:YYYY-mm-dd_HHMMSS%"
#define UNKNOWN_MODEL    "UnknownModel"
#define UNKNOWN_SEED     "UnknownSeed"
#define COUNTER_DIGITS   5
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
    luna_text model_path, model_name, model_dir, seed;
    uint64_t index, batch, width, height;
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

//  What a job brings in. It has no counter of its own: that byte is for %counter%.
static void add_text(buffer *b, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        add(b, data[i] == LUNA_NAME_COUNTER ? "_" : data + i, 1);
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
        if (len == 1) add_text(b, format.data + at, 1);
        at += len;
    }
}

//  One letter again and again is a part of the date with that many digits; "yy" and
//  "yyyy" are the year.
static size_t add_date_part(buffer *b, luna_text format, const values *v)
{
    const char letters[] = {'d', 'M', 'h', 'm', 's'};
    const int parts[] = {v->day, v->month, v->hour, v->minute, v->second};
    const char letter = format.data[0];
    size_t run = 1;
    while (run < format.len && format.data[run] == letter) run++;
    if (letter == 'y' && run >= 4) return add_number(b, (uint64_t)v->year, 4), 4;
    if (letter == 'y' && run == 2) return add_number(b, (uint64_t)v->year % 100, 2), 2;
    for (size_t i = 0; i < sizeof letters; i++) {
        if (letter != letters[i]) continue;
        run = run > 2 ? 2 : run;
        return add_number(b, (uint64_t)parts[i], (int)run), run;
    }
    return add_text(b, format.data, run), run;
}

static void add_date(buffer *b, luna_text format, const values *v)
{
    while (format.len > 0) {
        const size_t used = add_date_part(b, format, v);
        format.data += used;
        format.len -= used;
    }
}

//  The rest of `word` behind `prefix`; empty when it begins otherwise or has none.
static luna_text behind(luna_text word, const char *prefix)
{
    const size_t skip = strlen(prefix);
    if (word.len <= skip || memcmp(word.data, prefix, skip) != 0) return (luna_text){0};
    return (luna_text){word.data + skip, word.len - skip};
}

static bool add_text_word(buffer *b, luna_text word, const values *v)
{
    const struct {
        const char *word;
        luna_text text;
    } words[] = {{"model_path", v->model_path},
                 {"model_name", v->model_name},
                 {"model_dir", v->model_dir},
                 {"seed", v->seed}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!luna_text_is(word, words[i].word)) continue;
        add_text(b, words[i].text.data, words[i].text.len);
        return true;
    }
    return false;
}

static bool add_number_word(buffer *b, luna_text word, const values *v)
{
    const struct {
        const char *word;
        uint64_t number;
    } words[] = {{"index", v->index},
                 {"batch", v->batch},
                 {"width", v->width},
                 {"height", v->height}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!luna_text_is(word, words[i].word)) continue;
        add_number(b, words[i].number, 1);
        return true;
    }
    return false;
}

//  Adds what the word between two percent signs stands for; false when it is none.
static bool add_word(buffer *b, luna_text word, const values *v)
{
    const luna_text time = behind(word, "time:"), date = behind(word, "date:");
    if (time.len > 0) return add_time(b, time, v), true;
    if (date.len > 0) return add_date(b, date, v), true;
    if (luna_text_is(word, "counter")) return add(b, &(char){LUNA_NAME_COUNTER}, 1), true;
    return add_text_word(b, word, v) || add_number_word(b, word, v);
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
            add_text(out, here, 1);
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
    if (memchr(part, LUNA_NAME_COUNTER, len))
        return luna_error(LUNA_BAD_REQUEST,
                          "%%counter%% stands in a folder; it belongs in the file name");
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
    add_text(out, affix.data, affix.len);
    for (size_t i = 0; i < out->len; i++)
        if (out->data[i] == '/' || out->data[i] == '\\') out->data[i] = '_';
    if (luna_name_is_up(out->data, out->len)) out->data[0] = '_';
}

static bool has_index(const luna_name_request *r)
{
    static const char word[] = "%batch%";
    const size_t len = sizeof word - 1;
    if (r->count < 2) return false;
    for (size_t at = 0; at + len <= r->filename.len; at++)
        if (memcmp(r->filename.data + at, word, len) == 0) return false;
    return true;
}

//  What a counter adds to the bytes of a stem.
static size_t counter_bytes(const char *stem)
{
    size_t places = 0;
    for (const char *at = stem; (at = strchr(at, LUNA_NAME_COUNTER)); at++) places++;
    return places ? (COUNTER_DIGITS - 1) * places : COUNTER_BYTES;
}

static luna_err make_stem(const luna_name_request *r, const char *base,
                          const buffer *affix, luna_name *name)
{
    buffer stem = {0};
    add(&stem, base, strlen(base));
    if (affix->len > 0) add(&stem, "_", 1);
    add(&stem, affix->data, affix->len);
    if (has_index(r)) add(&stem, "_", 1);
    if (has_index(r)) add_number(&stem, r->index, 1);
    if (!stem.full) LUNA_TRY(luna_name_part(stem.data, stem.len, name->stem));
    const size_t rest = counter_bytes(name->stem) + 1 + strlen(name->ext) +
                        (r->sidecar ? strlen(".json") : 0);
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
    const luna_text texts[] = {r->save_path, r->filename, r->affix, r->model_name,
                               r->seed};
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
    values v = {.index = request->filename_index,
                .batch = request->index,
                .width = request->width,
                .height = request->height,
                .seed = request->seed.len ? request->seed : luna_text_of(UNKNOWN_SEED)};
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
    if (request->discarded)
        LUNA_TRY(add_folder(&name, LUNA_NAME_DISCARDED, strlen(LUNA_NAME_DISCARDED)));
    if (request->subdir) LUNA_TRY(add_folder(&name, affix.data, affix.len));
    LUNA_TRY(make_filename(request, &v, &filename));
    LUNA_TRY(add_folders(&name, filename.data, &base));
    LUNA_TRY(make_stem(request, base, &affix, &name));
    *out = name;
    return LUNA_OK;
}

void luna_name_model(luna_text model_name, char room[LUNA_NAME_MODEL_BYTES],
                     luna_text *path, luna_text *name)
{
    values v = {0};
    _Static_assert(sizeof v.model.data <= LUNA_NAME_MODEL_BYTES, "it must fit");
    *path = *name = (luna_text){room, 0};
    if (model_name.len == 0) return;
    split_model(model_name, &v);
    memcpy(room, v.model_path.data, v.model_path.len);
    path->len = v.model_path.len;
    const size_t skip = v.model_dir.len + (v.model_dir.len > 0);
    *name = (luna_text){room + skip, path->len > skip ? path->len - skip : 0};
}

//  The stem with `number` in place of its counters; false when it has none.
static bool put_counter(const char *stem, unsigned number, buffer *out)
{
    const bool has = strchr(stem, LUNA_NAME_COUNTER) != NULL;
    for (; *stem; stem++) {
        if (*stem == LUNA_NAME_COUNTER)
            add_number(out, number, COUNTER_DIGITS);
        else
            add(out, stem, 1);
    }
    return has;
}

void luna_name_candidate(const luna_name *name, unsigned k,
                         char out[LUNA_NAME_PART_BYTES])
{
    //  luna_name_make left room for a counter, so nothing is cut at the copy.
    buffer text = {0};
    if (!put_counter(name->stem, k + 1, &text) && k > 0) {
        add(&text, "_", 1);
        add_number(&text, k, COUNTER_DIGITS);
    }
    add(&text, ".", 1);
    add(&text, name->ext, strlen(name->ext));
    const size_t len =
        text.len < LUNA_NAME_PART_BYTES ? text.len : LUNA_NAME_PART_BYTES - 1;
    memcpy(out, text.data, len);
    out[len] = '\0';
}
