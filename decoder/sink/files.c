#include "decoder/sink/files.h"

#include "decoder/sink/publish.h"
#include "decoder/sink/sweep.h"

#include <stdlib.h>

//  How often other attempts at the same image may finish it, and its picture be deleted
//  again, before a put gives up.
#define ROUNDS 100

static luna_err files_find(luna_sink *sink, const luna_image_key *key,
                           luna_image_record *record, bool *found)
{
    return luna_publish_find((const luna_files *)sink, key, record, found);
}

static luna_err files_put(luna_sink *sink, const luna_image *image,
                          luna_image_record *record)
{
    const luna_files *files = (const luna_files *)sink;
    if (image->len == 0)
        return luna_error(LUNA_BAD_REQUEST, "an image file has no bytes");
    for (int round = 0; round < ROUNDS; round++) {
        bool found, again;
        LUNA_TRY(luna_publish_find(files, &image->key, record, &found));
        if (found) return LUNA_OK;
        LUNA_TRY(luna_publish(files, image, record, &again));
        if (!again) return LUNA_OK;
    }
    return luna_error(LUNA_IO, "an image is saved and deleted over and over");
}

static luna_err files_check(luna_sink *sink, luna_text output_dir, const luna_name *name)
{
    luna_place place;
    return luna_place_find(&((const luna_files *)sink)->roots, output_dir, name->folder,
                           &place);
}

static luna_err files_sweep(luna_sink *sink, int64_t older_than_ms, int64_t most_ms,
                            luna_swept *swept)
{
    return luna_sweep((const luna_files *)sink, older_than_ms, most_ms, swept);
}

static void files_close(luna_sink *sink)
{
    luna_files *files = (luna_files *)sink;
    luna_roots_close(&files->roots);
    free(files);
}

static const luna_sink_ops files_ops = {.name = "files",
                                        .find = files_find,
                                        .check = files_check,
                                        .put = files_put,
                                        .sweep = files_sweep,
                                        .close = files_close};

luna_err luna_files_open(const luna_files_options *options, luna_sink **out)
{
    luna_files *files = calloc(1, sizeof *files);
    if (!files) return luna_error(LUNA_NO_MEMORY, "no memory for the file sink");
    files->head.ops = &files_ops;
    files->access = options->access;
    files->fault = (luna_fault){.before = options->before, .arg = options->arg};
    const luna_err err = luna_roots_open(options->roots, options->count, &files->roots);
    if (err == LUNA_OK)
        *out = &files->head;
    else
        free(files);
    return err;
}
