//  key: by what a broker on another machine knows this one

#include "common/home.h"
#include "common/address.h"
#include "producer/lunactl/lunactl.h"

luna_err luna_ctl_key(luna_ctl *ctl)
{
    char path[LUNA_HOME_BYTES], key[LUNA_KEY_TEXT_BYTES];
    luna_key_pair pair;
    LUNA_TRY(luna_home_key(path, sizeof path));
    LUNA_TRY(luna_key_file(path, &pair));
    luna_key_text(&pair.open, key);
    if (ctl->json)
        return luna_ctl_print_json(json_pack("{s:s, s:s}", "key", key, "key_file", path));
    printf("%s\n", key);
    return LUNA_OK;
}
