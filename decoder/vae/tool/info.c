#include "common/json_text.h"
#include "decoder/vae/tool/tool.h"

#include <stdio.h>
#include <string.h>

//  As a JSON string.
static void print_quoted(const char *text)
{
    char quoted[512];
    luna_json_text_write(text, strlen(text), quoted, sizeof quoted);
    quoted[sizeof quoted - 1] = '\0';
    fputs(quoted, stdout);
}

static void print_json(const luna_vae_info *info)
{
    printf("{\"family\": ");
    print_quoted(info->family);
    printf(", \"variant\": ");
    print_quoted(info->variant);
    printf(
        ", \"latent_channels\": %zu, \"packed_channels\": %zu, \"spatial_factor\": %zu",
        info->latent_channels, info->packed_channels, info->spatial_factor);
    printf(", \"output_channels\": %zu, \"parameters\": %llu", info->output_channels,
           (unsigned long long)info->parameter_count);
    printf(", \"file_bytes\": %llu, \"read_bytes\": %llu",
           (unsigned long long)info->file_bytes, (unsigned long long)info->read_bytes);
    printf(", \"latent_scale\": %.9g, \"latent_shift\": %.9g", (double)info->latent_scale,
           (double)info->latent_shift);
    printf(", \"device\": ");
    print_quoted(info->device);
    printf(", \"backend\": ");
    print_quoted(info->backend);
    printf(", \"precision\": ");
    print_quoted(info->precision);
    puts("}");
}

static void print_text(const luna_vae_info *info)
{
    printf("family           %s\n", info->family);
    printf("variant          %s\n", info->variant);
    printf("latent channels  %zu", info->latent_channels);
    if (info->packed_channels) printf(", or %zu packed 2x2", info->packed_channels);
    printf("\nspatial factor   %zu\n", info->spatial_factor);
    printf("output channels  %zu\n", info->output_channels);
    printf("parameters       %llu\n", (unsigned long long)info->parameter_count);
    printf("file             %llu bytes, %llu of them read\n",
           (unsigned long long)info->file_bytes, (unsigned long long)info->read_bytes);
    printf("latent scale     %.6g, shift %.6g\n", (double)info->latent_scale,
           (double)info->latent_shift);
    printf("device           %s, %s, %s\n", info->device, info->backend, info->precision);
}

luna_err tool_info(const tool_options *options)
{
    luna_vae *vae = NULL;
    if (!options->model)
        return luna_error(LUNA_USAGE, "the model is missing: luna-vae info MODEL");
    LUNA_TRY(luna_vae_open(options->model, &options->vae, &vae));
    if (options->json)
        print_json(luna_vae_describe(vae));
    else
        print_text(luna_vae_describe(vae));
    luna_vae_close(&vae);
    return LUNA_OK;
}
