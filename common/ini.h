//  ini.h - an INI file, entry by entry
//
//      ; a comment, also with #          blank lines and indents say nothing
//      [section]                         or [kind name]
//      key = value                       or key: value
//      key = value ; and a comment       after a blank, or right after the '='
//
//  Section, key and value come without the blanks around them. A value goes on one line,
//  of any length. A byte order mark at the start and CRLF are fine.

#ifndef LUNA_COMMON_INI_H
#define LUNA_COMMON_INI_H

#include "common/err.h"

#define LUNA_INI_BYTES (1 << 20)  //  the largest file

//  One entry; the texts live as long as the call. `section` is "" before the first one.
//  An error ends the reading.
typedef luna_err luna_ini_entry(void *context, const char *section, const char *key,
                                const char *value);

//  Reads a file in its order. LUNA_NOT_FOUND when it cannot be read; LUNA_CONFIG with
//  "path:line: sentence" for the first line that is wrong or that `entry` refuses;
//  LUNA_NO_MEMORY.
LUNA_MUST_USE luna_err luna_ini_read(const char *path, luna_ini_entry *entry,
                                     void *context);

#endif
