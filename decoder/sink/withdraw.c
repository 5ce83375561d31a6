#include "decoder/sink/withdraw.h"

#include "decoder/sink/mark.h"
#include "decoder/sink/publish.h"
#include "decoder/sink/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

//  One image, seen through its marks.
typedef struct withdrawal {
    const char *root;
    const luna_image_key *key;
    uint64_t *removed;
    bool foreign;  //  an attempt of another host, or of one that is not known
    bool kept;     //  the picture has its name
    char prefix[LUNA_NAME_PART_BYTES];  //  of the temporaries
} withdrawal;

static bool is_of(const withdrawal *w, const char *name)
{
    luna_image_key key;
    return luna_mark_key(name, &key) && key.input == w->key->input &&
           key.index == w->key->index;
}

//  A power cut can take a mark's text and leave its name, by which the next attempt knows
//  that there is something to clear away.
static void look_at_host(void *arg, int side, const char *name)
{
    withdrawal *w = arg;
    luna_mark mark;
    if (!is_of(w, name)) return;
    if (!luna_mark_read(side, name, &mark) || !luna_host_is_this(mark.host))
        w->foreign = true;
}

//  Of the temporaries all but those of the picture that has its name.
typedef struct removal {
    const withdrawal *of;
    ino_t spared;  //  0: none
} removal;

static void remove_temporary(void *arg, int dir, const char *name)
{
    const removal *r = arg;
    struct stat info;
    if (strncmp(name, r->of->prefix, strlen(r->of->prefix)) != 0) return;
    if (fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (r->spared != 0 && info.st_ino == r->spared) return;
    if (unlinkat(dir, name, 0) == 0) ++*r->of->removed;
}

//  The anchor's inode when its file has a name besides the anchor and the token, which
//  may be in another folder by now; 0 when it has none. False when that cannot be told.
static bool find_named(const withdrawal *w, int dir, ino_t *inode)
{
    char anchor[LUNA_NAME_PART_BYTES];
    luna_found found;
    struct stat info;
    *inode = 0;
    snprintf(anchor, sizeof anchor, "%.*stmp", LUNA_NAME_PART_BYTES - 4, w->prefix);
    if (fstatat(dir, anchor, &info, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT;
    if (luna_scan_inode(dir, info.st_ino, anchor, &found) != LUNA_OK) return false;
    const nlink_t temporary = found.token[0] ? 2 : 1;
    if (found.final[0] || info.st_nlink > temporary) *inode = info.st_ino;
    return true;
}

static bool clear_folder(withdrawal *w, int dir)
{
    removal r = {.of = w};
    if (!find_named(w, dir, &r.spared)) return false;
    if (luna_scan_each(dir, remove_temporary, &r) != LUNA_OK) return false;
    return r.spared == 0;
}

static void take_back(void *arg, int side, const char *name)
{
    withdrawal *w = arg;
    luna_place place = {.root = w->root};
    luna_mark mark;
    int dir;
    if (!is_of(w, name) || !luna_mark_read(side, name, &mark)) return;
    memcpy(place.folder, mark.folder, sizeof place.folder);
    const luna_err err = luna_place_open(&place, NULL, &dir);
    bool cleared = err == LUNA_NOT_FOUND;
    if (err == LUNA_OK) {
        cleared = clear_folder(w, dir);
        close(dir);
    }
    if (cleared)
        (void)unlinkat(side, name, 0);
    else
        w->kept = true;
}

void luna_withdraw(const char *root, int side, const luna_image_key *key,
                   uint64_t *removed)
{
    withdrawal w = {.root = root, .key = key, .removed = removed};
    char records[LUNA_RECORD_NAME_BYTES];
    luna_publish_prefix(key, w.prefix);
    if (luna_scan_each(side, look_at_host, &w) != LUNA_OK || w.foreign) return;
    if (luna_scan_each(side, take_back, &w) != LUNA_OK || w.kept) return;
    luna_record_name(key, ".", records);  //  records that got no name
    (void)!luna_scan_remove(side, records, INT64_MAX);
}
