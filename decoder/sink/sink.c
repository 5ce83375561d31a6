#include "decoder/sink/sink.h"

luna_err luna_sink_find(luna_sink *sink, const luna_image_key *key,
                        luna_image_record *record, bool *found)
{
    return sink->ops->find(sink, key, record, found);
}

luna_err luna_sink_check(luna_sink *sink, luna_text output_dir, const luna_name *name)
{
    return sink->ops->check(sink, output_dir, name);
}

luna_err luna_sink_put(luna_sink *sink, const luna_image *image,
                       luna_image_record *record)
{
    return sink->ops->put(sink, image, record);
}

luna_err luna_sink_sweep(luna_sink *sink, int64_t older_than_ms, int64_t most_ms,
                         luna_swept *swept)
{
    return sink->ops->sweep(sink, older_than_ms, most_ms, swept);
}

void luna_sink_close(luna_sink **sink)
{
    if (*sink) (*sink)->ops->close(*sink);
    *sink = NULL;
}
