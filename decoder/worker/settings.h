//  settings.h - luna-decoder's settings: [decoder], [vae], [vae NAME], [output], [log]

#ifndef LUNA_WORKER_SETTINGS_H
#define LUNA_WORKER_SETTINGS_H

#include "common/config.h"
#include "common/log.h"
#include "decoder/sink/access.h"
#include "decoder/worker/registry.h"

typedef struct luna_decoder_settings {
    char name[LUNA_SETTING_BYTES];    //  "": see luna_decoder_settings_name
    char device[LUNA_SETTING_BYTES];  //  "auto", "cpu", "cuda:..."
    char broker[LUNA_SETTING_BYTES];  //  its address; "": luna_home_control
    char key_file[LUNA_SETTING_BYTES];
    uint64_t encode_threads;  //  0: one less than there are cores
    uint64_t cpu_threads;     //  of a decode on the CPU; 0: the library's choice
    uint64_t credit_jobs;
    uint64_t credit_bytes;
    uint64_t memory_limit_bytes;  //  of one decode; 0: the device's own
    uint64_t pixels_max_bytes;    //  of decoded pictures that wait to be saved
    uint64_t models_max;          //  VAEs kept in memory
    uint64_t models_max_bytes;
    uint64_t stop_timeout_ms;
    uint64_t hang_timeout_ms;  //  of a GPU; 0: never
    uint64_t keep_records_ms;  //  of saved images, against a second saving
    char vae_roots[LUNA_SETTING_BYTES];
    char output_roots[LUNA_SETTING_BYTES];
    char file_mode[LUNA_SETTING_BYTES];
    char folder_mode[LUNA_SETTING_BYTES];
    char owner[LUNA_SETTING_BYTES];
    char group[LUNA_SETTING_BYTES];
    luna_access access;  //  what these four say
    char log_level[LUNA_SETTING_BYTES];
    luna_log_level least;
} luna_decoder_settings;

//  What the command line says; NULL for a flag that is absent.
typedef struct luna_decoder_flags {
    const char *config;
    const char *name;
    const char *device;
} luna_decoder_flags;

//  Reads file, environment and flags, fills in what depends on the machine, and gives
//  the `[vae NAME]` sections to `registry`. Looks at no VAE and no output folder.
//  LUNA_CONFIG, LUNA_NOT_FOUND.
LUNA_MUST_USE luna_err luna_decoder_settings_load(const luna_decoder_flags *flags,
                                                  luna_registry *registry,
                                                  luna_decoder_settings *out);

//  The name of a decoder that was given none: its host's and its device's, where `device`
//  is what `auto` has found.
void luna_decoder_settings_name(luna_decoder_settings *settings, const char *device);

//  Every setting with its value and help, as a file.
void luna_decoder_settings_print(const luna_decoder_settings *settings, FILE *to);

#endif
