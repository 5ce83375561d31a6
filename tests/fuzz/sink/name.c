//  name.c - any templates as folder and file name of an image
//
//  Whatever the templates hold, the result stays below the output folder and is a name
//  that Linux and Windows take.

#include "common/utf8.h"
#include "decoder/sink/name.h"
#include "fuzz/fuzz.h"

enum { TEXT_BYTES = 255 };

static void check_part(const char *part, size_t len)
{
    static const char refused[] = "<>:\"|?*\\/";
    CHECK(len > 0 && len < LUNA_NAME_PART_BYTES);
    CHECK(part[0] != '.');
    CHECK(part[len - 1] != '.' && part[len - 1] != ' ');
    CHECK(luna_utf8_valid(part, len));
    for (size_t i = 0; i < len; i++)
        CHECK((uint8_t)part[i] >= 0x20 && part[i] != 0x7f && !strchr(refused, part[i]));
}

static void check_folder(const char *folder)
{
    if (folder[0] == '\0') return;
    for (;;) {
        const size_t len = strcspn(folder, "/");
        check_part(folder, len);
        if (folder[len] == '\0') return;
        folder += len + 1;
    }
}

static void check_candidates(const luna_name *name, bool sidecar)
{
    static const unsigned tries[] = {0, 1, LUNA_NAME_TRIES - 1};
    const size_t before = strcspn(name->stem, (char[]){LUNA_NAME_COUNTER, '\0'});
    char all[3][LUNA_NAME_PART_BYTES];
    for (size_t i = 0; i < 3; i++) {
        luna_name_candidate(name, tries[i], all[i]);
        const size_t len = strlen(all[i]), ext = strlen(name->ext);
        check_part(all[i], len);
        CHECK(len > ext + 1 && strcmp(all[i] + len - ext, name->ext) == 0);
        CHECK(strncmp(all[i], name->stem, before) == 0);
        CHECK(len + (sidecar ? strlen(".json") : 0) < LUNA_NAME_PART_BYTES);
    }
    CHECK(strcmp(all[0], all[1]) != 0 && strcmp(all[1], all[2]) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const exts[] = {"png", "webp",       "jpg", "a",
                                       "",    "toolongone", "p/g"};
    fuzz_bytes from = {.at = data, .left = len};
    luna_name name;
    luna_name_request request = {
        .subdir = fuzz_bool(&from),
        .ext = exts[fuzz_below(&from, 16) % 7],
        .filename_index = fuzz_uint(&from, 2),
        .index = fuzz_uint(&from, 2),
        .count = fuzz_uint(&from, 1),
        .created_ms = fuzz_uint(&from, 8),
        .utc_offset_min = (int64_t)fuzz_uint(&from, 2) - 1500,
    };
    request.discarded = request.count & 1;
    request.sidecar = request.count & 2;
    request.width = request.filename_index;
    request.height = request.index;
    request.affix = fuzz_text(&from, 40);
    request.seed = fuzz_text(&from, 30);
    request.model_name = fuzz_text(&from, TEXT_BYTES);
    request.save_path = fuzz_text(&from, TEXT_BYTES);
    request.filename = fuzz_text(&from, TEXT_BYTES);
    const luna_err err = luna_name_make(&request, &name);
    if (err != LUNA_OK) {
        CHECK(err == LUNA_FORBIDDEN || err == LUNA_TOO_LARGE || err == LUNA_BAD_REQUEST);
        fuzz_check_error(err);
        return 0;
    }
    CHECK(strlen(name.folder) < LUNA_NAME_FOLDER_BYTES);
    check_folder(name.folder);
    check_candidates(&name, request.sidecar);
    return 0;
}
