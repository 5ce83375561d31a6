//  luna-vae: look at, run and time a VAE decoder without the rest of Luna

#include "common/program.h"
#include "decoder/vae/tool/tool.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: luna-vae info MODEL [--json]\n"
    "       luna-vae decode --model MODEL --latents FILE[:TENSOR] --output "
    "OUT.safetensors\n"
    "       luna-vae bench (--model MODEL | --random sd|sdxl|flux|taesd) --shape "
    "NxWIDTHxHEIGHT\n"
    "       luna-vae selftest [--device DEVICE]\n"
    "\n"
    "decode   writes the tensor 'pixels', float32 [N, channels, H, W] in [0, 1]\n"
    "  --raw                  the decoder's own output, unclamped\n"
    "bench    times decodes of random latents, and what comes before the first;\n"
    "         WIDTH and HEIGHT are the picture's\n"
    "  --json                 one JSON object instead of text (info too)\n"
    "  --runs N               instead of about two seconds' worth\n"
    "  --before NxWxH         decode this shape first: the first decode of --shape is\n"
    "                         then that of a decoder at work\n"
    "selftest decodes two tiny pictures and compares them with plain C, as\n"
    "         luna-decoder does before it takes work\n"
    "every command\n"
    "  --device DEVICE        auto (default), cpu, cuda:N, cuda:GPU-UUID (or its\n"
    "                         beginning), or reference (plain C, slow)\n"
    "  --precision P          fp32, bf16 or fp16; a CPU has fp32\n"
    "  --memory-limit BYTES   of one decode; K, M, G are taken. A CPU keeps the rest in\n"
    "                         TMPDIR or /var/tmp; without this what is over 1.5 GiB.\n"
    "                         On a GPU without this: what is free, less a reserve\n"
    "  --threads N            CPU threads\n"
    "  --latent-scale X, --latent-shift X\n"
    "                         the model sees (latent - shift) * scale; for a TAESD whose\n"
    "                         file and name do not say it, or latents of other tools\n"
    "models   safetensors, bare or whole checkpoints: KL (SD 1, SD 2, SDXL, SD 3, FLUX.1,\n"
    "         FLUX.2, x4 upscaler), Wan 2.1 / Qwen-Image (one frame), TAESD, TAESDXL, TAESD3,\n"
    "         TAEF1, TAEF2, TAESANA\n"
    "  --help, --version\n"
    "\n"
    "exit: 0 done, 64 usage, 65 bad data, 66 no input, 69 no device, 70 overflow,\n"
    "      73 cannot create, 74 I/O, 75 no memory\n";

static luna_err run(const char *command, const tool_options *options)
{
    if (strcmp(command, "info") == 0) return tool_info(options);
    if (strcmp(command, "decode") == 0) return tool_decode(options);
    if (strcmp(command, "bench") == 0) return tool_bench(options);
    if (strcmp(command, "selftest") == 0) return tool_selftest(options);
    return luna_error(LUNA_USAGE, "'%.40s' is no command; luna-vae --help lists them",
                      command);
}

static bool asked(int argc, char **argv, const char *option)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], option) == 0) return true;
    return false;
}

static int finish(luna_err err)
{
    return luna_program_end("luna-vae", err);
}

int main(int argc, char **argv)
{
    tool_options options = {.vae = luna_vae_options_default()};
    if (asked(argc, argv, "--help") || asked(argc, argv, "-h")) {
        fputs(help, stdout);
        return finish(LUNA_OK);
    }
    if (asked(argc, argv, "--version")) {
        puts("luna-vae " LUNA_VERSION);
        return finish(LUNA_OK);
    }
    if (argc < 2)
        return finish(luna_error(
            LUNA_USAGE, "a command is missing: info, decode, bench or selftest"));
    luna_err err = tool_options_read(argc - 1, argv + 1, &options);
    if (err == LUNA_OK) err = run(argv[1], &options);
    return finish(err);
}
