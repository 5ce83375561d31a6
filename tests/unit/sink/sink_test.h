//  sink_test.h - what the sink's tests share: a root folder, images, and looking at
//  what is left on the disk

#ifndef LUNA_TEST_SINK_H
#define LUNA_TEST_SINK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "decoder/sink/files.h"

#define ROOT "root"

static inline luna_text text(const char *s)
{
    return (luna_text){s, s ? strlen(s) : 0};
}

static inline luna_sink *open_sink(int (*before)(void *, const char *), void *arg)
{
    static const char *const roots[] = {ROOT};
    luna_sink *sink;
    const luna_files_options options = {
        .roots = roots, .count = 1, .before = before, .arg = arg};
    if (luna_files_open(&options, &sink) != LUNA_OK) fail_msg("%s", luna_error_text());
    return sink;
}

//  Removes a folder and everything in it, following no symlink.
static inline void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char child[4096];
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(child, sizeof child, "%.2000s/%s", path, entry->d_name);
        if (lstat(child, &info) == 0 && S_ISDIR(info.st_mode))
            remove_tree(child);
        else
            unlink(child);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

//  Names in a folder that begin, or do not begin, with a dot.
static inline size_t count_names(const char *path, bool hidden)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (strcmp(entry->d_name, ".luna") == 0) continue;
        count += (entry->d_name[0] == '.') == hidden;
    }
    if (dir) closedir(dir);
    return count;
}

//  Files in a job's memory.
static inline size_t count_records(const luna_id *job)
{
    char id[LUNA_ID_TEXT_BYTES], path[256];
    luna_id_text(job, id);
    snprintf(path, sizeof path, ROOT "/.luna/%s", id);
    return count_names(path, false);
}

static inline luna_name make_name(const char *folder, const char *stem)
{
    luna_name name = {.ext = "png"};
    snprintf(name.folder, sizeof name.folder, "%s", folder);
    snprintf(name.stem, sizeof name.stem, "%s", stem);
    return name;
}

static inline luna_image make_image(luna_id job, const luna_name *name, const char *bytes)
{
    return (luna_image){.key = {.job = job, .input = 1, .index = 3},
                        .name = name,
                        .data = bytes,
                        .len = strlen(bytes),
                        .width = 640,
                        .height = 480};
}

static inline void check_content(const char *path, const char *want)
{
    char *got;
    size_t len;
    if (luna_file_read(path, 1 << 20, &got, &len) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    assert_string_equal(got, want);
    free(got);
}

//  An hour of memory, and more than time enough. How many temporaries it removed.
static inline uint64_t sweep(luna_sink *sink)
{
    luna_swept swept;
    if (luna_sink_sweep(sink, 3600000, 60000, &swept) != LUNA_OK)
        fail_msg("%s", luna_error_text());
    assert_int_equal(swept.passed_over, 0);
    return swept.removed;
}

static inline void put_ok(luna_sink *sink, const luna_image *image,
                          luna_image_record *out)
{
    if (luna_sink_put(sink, image, out) != LUNA_OK) fail_msg("%s", luna_error_text());
}

#endif
