//  Shortened ids
//
//  Ids of one minute begin alike (UUIDv7 starts with the time), so their ends, which are
//  random, tell them apart best: both are taken.

#include "producer/lunactl/lunactl.h"

#include "common/id.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define PART_MIN   8
#define LOOK_AMONG 10000  //  newest jobs
#define LIST_MAX   5      //  candidates in an error
#define SHORT_FROM 24     //  the last 12 characters: a UUID's last group
#define WIDE       100    //  columns from which whole ids fit

const char *luna_ctl_shown_id(const char *id, size_t width)
{
    return width && width < WIDE && strlen(id) > SHORT_FROM ? id + SHORT_FROM : id;
}

static bool is_part(const char *word)
{
    const size_t len = strlen(word);
    for (const char *c = word; *c; c++)
        if (!isxdigit((unsigned char)*c) && *c != '-') return false;
    return len >= PART_MIN && len < LUNA_JOB_ID_BYTES - 1;
}

static bool fits(const char *id, const char *part)
{
    const size_t len = strlen(part);
    return strncasecmp(id, part, len) == 0 ||
           strcasecmp(id + strlen(id) - len, part) == 0;
}

static luna_err several(const char *part, const luna_answer *jobs, size_t count)
{
    char list[LIST_MAX * (LUNA_JOB_ID_BYTES + 2)] = "";
    size_t listed = 0, used = 0;
    for (size_t i = 0; i < jobs->job_count && listed < LIST_MAX; i++) {
        if (!fits(jobs->jobs[i].id, part)) continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s",
                                 listed ? ", " : "", jobs->jobs[i].id);
        listed++;
    }
    return luna_error(LUNA_USAGE, "'%s' fits %zu jobs, give more of the id: %s%s", part,
                      count, list, count > listed ? ", ..." : "");
}

static luna_err look_up(luna_ctl *ctl, const char *part, char id[LUNA_JOB_ID_BYTES])
{
    const luna_job *found = NULL;
    size_t count = 0;
    if (!ctl->known)
        LUNA_TRY(luna_ctl_rc(luna_query_jobs(ctl->client, NULL, LOOK_AMONG,
                                             LUNA_CTL_WAIT_MS, &ctl->known)));
    for (size_t i = 0; i < ctl->known->job_count; i++) {
        if (!fits(ctl->known->jobs[i].id, part)) continue;
        found = &ctl->known->jobs[i];
        count++;
    }
    if (count > 1) return several(part, ctl->known, count);
    if (!found)
        return luna_error(LUNA_NOT_FOUND,
                          "none of the newest %zu jobs begins or ends with '%s'",
                          ctl->known->job_count, part);
    snprintf(id, LUNA_JOB_ID_BYTES, "%s", found->id);
    return LUNA_OK;
}

luna_err luna_ctl_job_id(luna_ctl *ctl, const char *word, char id[LUNA_JOB_ID_BYTES])
{
    luna_id whole;
    if (luna_id_parse(word, &whole) == LUNA_OK) {
        luna_id_text(&whole, id);
        return LUNA_OK;
    }
    if (is_part(word)) return look_up(ctl, word, id);
    return luna_error(LUNA_USAGE,
                      "'%.40s' is not a job id: a UUID, or at least %d characters of its "
                      "beginning or end",
                      word, PART_MIN);
}
