#define _GNU_SOURCE  //  O_TMPFILE
#include "decoder/vae/cpu/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *folder(void)
{
    const char *named = getenv("TMPDIR");
    return named && *named ? named : "/var/tmp";
}

//  Not every file system makes files without a name.
static int open_named(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/luna-vae-XXXXXX", folder());
    const int file = mkostemp(path, O_CLOEXEC);
    if (file >= 0) unlink(path);
    return file;
}

luna_err cpu_spill_open(size_t bytes, int *out)
{
    int file = open(folder(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) file = open_named();
    //  Room is taken before work is done for nothing.
    const int error = file < 0 ? errno : posix_fallocate(file, 0, (off_t)bytes);
    if (error == 0) {
        *out = file;
        return LUNA_OK;
    }
    if (file >= 0) close(file);
    return luna_error(LUNA_NO_MEMORY,
                      "a picture of this size needs a temporary file of %zu bytes in %s: "
                      "%s; name another folder in TMPDIR or raise the memory limit",
                      bytes, folder(), strerror(error));
}

int cpu_spill_read(int file, void *data, size_t bytes, size_t offset)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n =
            pread(file, (char *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        done += (size_t)n;
    }
    return 0;
}

int cpu_spill_write(int file, const void *data, size_t bytes, size_t offset)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n =
            pwrite(file, (const char *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : ENOSPC;
        done += (size_t)n;
    }
    return 0;
}
