//  plugin.h - the CUDA backend is a shared library, loaded when it is asked for
//
//  So one package serves machines with and without a GPU: the library needs CUDA and
//  cuDNN, the programs do not. It is luna-cuda.so: the file that LUNA_CUDA_PLUGIN names,
//  else beside the program in ../lib, else where the system's loader finds it.

#ifndef LUNA_DECODER_VAE_PLUGIN_H
#define LUNA_DECODER_VAE_PLUGIN_H

#include "decoder/vae/backend.h"

#include "common/log.h"

//  Both sides must have been built from the same interface.
#define LUNA_PLUGIN_VERSION 3
#define LUNA_PLUGIN_ENTRY   "luna_plugin_enter"

//  What the plugin uses of the program that loads it.
typedef struct luna_plugin_host {
    int version;
    size_t backend_bytes;  //  sizeof(luna_backend), and so on: a cheap second look
    size_t graph_bytes;
    luna_err (*error)(luna_err err, const char *format, ...) LUNA_PRINTF(2, 3);
    const char *(*error_text)(void);
    void (*log)(luna_log_level level, const char *event, const char *format, ...)
        LUNA_PRINTF(3, 4);
} luna_plugin_host;

//  The plugin's one function: its backend, NULL when the two do not fit together.
typedef const luna_backend *luna_plugin_enter_fn(const luna_plugin_host *host);

//  Loads the CUDA backend, once; later calls give the same. LUNA_UNAVAILABLE when there
//  is no plugin, or when what it needs is not there: the sentence says what. Thread: any,
//  one at a time at first.
LUNA_MUST_USE luna_err luna_plugin_cuda(const luna_backend **out);

#endif
