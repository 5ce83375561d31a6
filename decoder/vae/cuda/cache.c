//  Choices on disk: one small file each. Its name is a hash of what it is for, its first
//  line says that in words and is compared.

#include "decoder/vae/cuda/conv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"

enum { PATH_ROOM = 1024, KEY_ROOM = 512, PLAN_MAX = 64 << 20 };

//  LUNA_CUDA_CACHE, where `off` means none; Luna's home; systemd's or the user's cache.
static bool find_folder(char out[PATH_ROOM])
{
    const struct {
        const char *variable;
        const char *below;
    } places[] = {{"LUNA_CUDA_CACHE", ""},
                  {"LUNA_HOME", "/cache"},
                  {"CACHE_DIRECTORY", ""},
                  {"XDG_CACHE_HOME", "/luna"},
                  {"HOME", "/.cache/luna"}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const char *value = getenv(places[i].variable);
        if (!value || !value[0]) continue;
        const int n = snprintf(out, PATH_ROOM, "%s%s", value, places[i].below);
        return n > 0 && n < PATH_ROOM && !(i == 0 && strcmp(value, "off") == 0);
    }
    return false;
}

//  What was measured with this library on this card.
static void describe(const gpu_device *device, const char *about, char out[KEY_ROOM])
{
    snprintf(out, KEY_ROOM, "luna-2 cudnn-%zu %s %d.%d %d %s\n", cudnnGetVersion(),
             device->properties.name, device->properties.major, device->properties.minor,
             device->properties.multiProcessorCount, about);
}

static void describe_problem(const gpu_device *device, const gpu_conv_problem *p,
                             char out[KEY_ROOM])
{
    static const char *const types[] = {"fp16", "bf16", "fp32"};
    snprintf(out, KEY_ROOM,
             "%s %dx%dx%d %d kernel-%d folded-%d bias-%d residual-%d relu-%d tries-%zu",
             types[p->from.type], p->from.channels, p->from.height, p->from.width,
             p->channels, p->kernel, p->folded, p->bias, p->residual, p->relu,
             device->tries);
}

//  FNV-1a.
static uint64_t hash(const char *text)
{
    uint64_t h = 14695981039346656037U;
    for (; *text; text++) h = (h ^ (uint8_t)*text) * 1099511628211U;
    return h;
}

static bool find_file(const char *key, char folder[PATH_ROOM], char path[PATH_ROOM])
{
    if (!find_folder(folder)) return false;
    const int n = snprintf(path, PATH_ROOM, "%s/%016" PRIx64 ".plan", folder, hash(key));
    return n > 0 && n < PATH_ROOM;
}

char *gpu_cache_read_note(const gpu_device *device, const char *about)
{
    char key[KEY_ROOM], folder[PATH_ROOM], path[PATH_ROOM], *text = NULL;
    size_t len = 0;
    describe(device, about, key);
    if (!find_file(key, folder, path) ||
        luna_file_read(path, PLAN_MAX, &text, &len) != LUNA_OK)
        return NULL;
    const size_t head = strlen(key);
    if (len > head && memcmp(text, key, head) == 0) {
        memmove(text, text + head, len - head + 1);
        return text;
    }
    free(text);
    return NULL;
}

static bool write_file(const char *path, const char *key, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return false;
    const bool good = luna_write_all(fd, key, strlen(key), path) == LUNA_OK &&
                      luna_write_all(fd, text, strlen(text), path) == LUNA_OK;
    return close(fd) == 0 && good;
}

void gpu_cache_write_note(const gpu_device *device, const char *about, const char *text)
{
    char key[KEY_ROOM], folder[PATH_ROOM], path[PATH_ROOM], fresh[PATH_ROOM + 32];
    describe(device, about, key);
    if (!find_file(key, folder, path) || luna_make_dirs(folder, 0755) != LUNA_OK) return;
    snprintf(fresh, sizeof fresh, "%s.%ld", path, (long)getpid());
    if (!write_file(fresh, key, text) || rename(fresh, path) != 0) (void)unlink(fresh);
}

char *gpu_cache_read(const gpu_device *device, const gpu_conv_problem *problem)
{
    char about[KEY_ROOM];
    describe_problem(device, problem, about);
    return gpu_cache_read_note(device, about);
}

void gpu_cache_write(const gpu_device *device, const gpu_conv_problem *problem,
                     const char *text)
{
    char about[KEY_ROOM];
    describe_problem(device, problem, about);
    gpu_cache_write_note(device, about, text);
}
