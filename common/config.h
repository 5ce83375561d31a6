//  config.h - settings from flag, environment, file and default, in that order
//
//  Each program declares its settings as a table (section, key, kind, default) and
//  gets them as C values. The file is INI (ini.h): `luna.conf`, then `luna.conf.d/*.conf`
//  in name order; the environment is LUNA_<SECTION>_<KEY>. An unknown key is an
//  error that names file and line. Units: bytes take KiB, MiB, GiB; durations take
//  ms, s, min, h.

#ifndef LUNA_COMMON_CONFIG_H
#define LUNA_COMMON_CONFIG_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LUNA_SETTING_BYTES 4096  //  longest value

typedef enum luna_setting_kind {
    LUNA_SETTING_TEXT,         //  char[LUNA_SETTING_BYTES]
    LUNA_SETTING_PATH,         //  the same; made absolute, %run% %state% %spool% %output%
    LUNA_SETTING_PATHS,        //  the same; several, separated by ':'
    LUNA_SETTING_COUNT,        //  uint64_t
    LUNA_SETTING_SIZE,         //  uint64_t, bytes
    LUNA_SETTING_DURATION_MS,  //  uint64_t
    LUNA_SETTING_FLAG          //  bool: yes, no, true, false, on, off, 1, 0
} luna_setting_kind;

typedef struct luna_setting {
    const char *section;
    const char *key;
    luna_setting_kind kind;
    size_t offset;         //  of the value in the program's settings struct
    const char *fallback;  //  the default, as it would stand in the file
    const char *help;      //  one line for --help and --print-config
} luna_setting;

//  Takes `[section name]` entries ("vae", "flux", "path", "/x") of a named section.
//  Returns LUNA_CONFIG with a sentence to refuse; file and line are added.
typedef luna_err luna_named_setting(void *context, const char *section, const char *name,
                                    const char *key, const char *value);

typedef struct luna_config {
    const luna_setting *settings;
    size_t count;
    const char *const *foreign;  //  sections of other programs, NULL-ended: passed over
    luna_named_setting *named;   //  NULL: named sections are foreign
    void *context;               //  for `named`
} luna_config;

//  Fills `out` (the program's struct) from defaults, then `path` and its .d folder,
//  then the environment. `path` NULL: the usual place (common/home.h), which may be
//  missing; a path that was given must exist. LUNA_CONFIG, LUNA_NOT_FOUND.
LUNA_MUST_USE luna_err luna_config_load(const luna_config *config, const char *path,
                                        void *out);

//  Sets one value from text, as a flag does. LUNA_CONFIG when it does not parse.
LUNA_MUST_USE luna_err luna_config_set(const luna_config *config, const char *section,
                                       const char *key, const char *value, void *out);

//  Writes every setting with its value and help, as a file that loads the same.
void luna_config_print(const luna_config *config, const void *values, FILE *to);

//  The I-th path of a PATHS value copied to `out`, without blanks around it; false when
//  there are fewer.
bool luna_paths_at(const char *paths, size_t index, char *out, size_t room);

#endif
