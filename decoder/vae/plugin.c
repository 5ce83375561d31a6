#include "decoder/vae/plugin.h"

#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_ROOM = 4096 };

static const char name[] = "luna-cuda.so";

//  ../lib of the running program's folder; "" when that cannot be told.
static void beside_program(char out[PATH_ROOM])
{
    char program[PATH_ROOM];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    out[0] = '\0';
    if (n <= 0) return;
    program[n] = '\0';
    const int len = snprintf(out, PATH_ROOM, "%s/../lib/%s", dirname(program), name);
    if (len < 0 || len >= PATH_ROOM || access(out, F_OK) != 0) out[0] = '\0';
}

static void choose_path(char out[PATH_ROOM])
{
    const char *named = getenv("LUNA_CUDA_PLUGIN");
    if (named && named[0])
        snprintf(out, PATH_ROOM, "%s", named);
    else
        beside_program(out);
    if (!out[0]) snprintf(out, PATH_ROOM, "%s", name);
}

//  dlerror speaks of the first library that is missing: the plugin itself, or CUDA's.
static luna_err cannot_load(void)
{
    const char *why = dlerror();
    const bool absent = why && strncmp(why, name, sizeof name - 1) == 0;
    if (absent)
        return luna_error(LUNA_UNAVAILABLE,
                          "this installation has no CUDA backend (%s); use cpu", name);
    return luna_error(LUNA_UNAVAILABLE,
                      "the CUDA backend cannot be loaded: %s; install what is missing "
                      "(CUDA's runtime, cuBLAS, cuDNN 9), or use cpu",
                      why ? why : "no reason given");
}

//  The plugin's libraries are large: they are left alone where there is no driver.
static luna_err need_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver)
        return luna_error(LUNA_UNAVAILABLE,
                          "there is no NVIDIA driver (libcuda.so.1); use cpu");
    dlclose(driver);
    return LUNA_OK;
}

static const luna_plugin_host host = {.version = LUNA_PLUGIN_VERSION,
                                      .backend_bytes = sizeof(luna_backend),
                                      .graph_bytes = sizeof(luna_graph),
                                      .error = luna_error,
                                      .error_text = luna_error_text,
                                      .log = luna_log};

//  Never unloaded: the driver keeps threads and handlers of its own.
static luna_err load(const luna_backend **out)
{
    char path[PATH_ROOM] = "";
    luna_plugin_enter_fn *enter = NULL;
    LUNA_TRY(need_driver());
    choose_path(path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return cannot_load();
    *(void **)&enter = dlsym(library, LUNA_PLUGIN_ENTRY);
    *out = enter ? enter(&host) : NULL;
    if (*out) return LUNA_OK;
    return luna_error(LUNA_UNAVAILABLE,
                      "the CUDA backend %s is of another version of Luna; install them "
                      "together, or use cpu",
                      path);
}

luna_err luna_plugin_cuda(const luna_backend **out)
{
    static const luna_backend *loaded;
    if (!loaded) LUNA_TRY(load(&loaded));
    *out = loaded;
    return LUNA_OK;
}
