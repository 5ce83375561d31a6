#define _GNU_SOURCE  //  F_OFD_SETLK

#include "decoder/sink/hold.h"

#include "decoder/sink/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOCK_FILE "lock"
#define TRIES     3000
#define PAUSE_NS  1000000
#define WORD      128

//  ---- the lock -----------------------------------------------------------------------

//  The image's byte: FNV-1a of what it is known by. Two images of one byte only make a
//  sweep pass one of them over.
static off_t byte_of(const luna_image_key *key)
{
    const uint64_t place[] = {key->input, key->index};
    uint64_t hash = 0xCBF29CE484222325;
    for (size_t i = 0; i < sizeof key->job; i++)
        hash = (hash ^ ((const uint8_t *)&key->job)[i]) * 0x100000001B3;
    for (size_t i = 0; i < sizeof place; i++)
        hash = (hash ^ ((const uint8_t *)place)[i]) * 0x100000001B3;
    return (off_t)(hash >> 2);
}

static int open_lock(const char *root)
{
    const luna_place place = {.root = root, .folder = LUNA_PLACE_HIDDEN};
    int hidden;
    if (luna_place_open(&place, NULL, &hidden) != LUNA_OK) return -1;
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    const int fd = openat(hidden, LOCK_FILE, flags, 0666);
    close(hidden);
    return fd;
}

//  A lock belongs to the open file, so that threads of one process have their own.
static bool take(int fd, short type, const luna_image_key *key)
{
    struct flock lock = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = byte_of(key), .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

luna_err luna_hold_shared(const char *root, const luna_image_key *key, luna_hold *hold)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    hold->fd = open_lock(root);
    for (int i = 0; hold->fd >= 0 && i < TRIES; i++) {
        if (take(hold->fd, F_RDLCK, key)) return LUNA_OK;
        if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
            luna_hold_end(hold);
            return LUNA_OK;
        }
        (void)nanosleep(&pause, NULL);
    }
    if (hold->fd < 0) return LUNA_OK;
    luna_hold_end(hold);
    return luna_error(
        LUNA_IO, "another decoder that tidies up keeps an image of %.300s; try again",
        root);
}

bool luna_hold_alone(const char *root, const luna_image_key *key, luna_hold *hold)
{
    hold->fd = open_lock(root);
    if (hold->fd >= 0 && !take(hold->fd, F_WRLCK, key)) luna_hold_end(hold);
    return hold->fd >= 0;
}

void luna_hold_end(luna_hold *hold)
{
    if (hold->fd >= 0) close(hold->fd);
    hold->fd = -1;
}

//  ---- the host -----------------------------------------------------------------------

//  The first word of a file; "-" when there is none.
static void read_word(const char *path, char out[WORD])
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t len = fd >= 0 ? read(fd, out, WORD - 1) : -1;
    if (fd >= 0) close(fd);
    out[len > 0 ? len : 0] = '\0';
    out[strcspn(out, " \t\r\n")] = '\0';
    if (out[0] == '\0') snprintf(out, WORD, "-");
}

void luna_host_text(char out[LUNA_HOST_BYTES])
{
    char start[WORD], machine[WORD], name[WORD] = "";
    read_word("/proc/sys/kernel/random/boot_id", start);
    read_word("/etc/machine-id", machine);
    if (gethostname(name, sizeof name - 1) != 0 || name[strcspn(name, " \n")] != '\0')
        snprintf(name, sizeof name, "-");
    out[0] = '\0';
    if (strcmp(start, "-") != 0)
        snprintf(out, LUNA_HOST_BYTES, "%s %s %s", start, machine, name);
}

//  Copies of a virtual machine, and containers of one image, may have the same machine id
//  on several hosts; the name must be the same too.
bool luna_host_is_this(const char *line)
{
    char here[LUNA_HOST_BYTES];
    luna_host_text(here);
    const char *rest = strchr(line, ' '), *own = strchr(here, ' ');
    if (!rest || !own) return false;
    if (rest - line == own - here && memcmp(line, here, (size_t)(own - here)) == 0)
        return true;
    return strcmp(rest, own) == 0 && strncmp(rest, " - ", 3) != 0;
}
