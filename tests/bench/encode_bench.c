//  encode_bench - encodes one picture as it is told, for encode_bench.py
//
//      encode_bench FILE WIDTH HEIGHT     raw RGB
//
//  Reads lines "FORMAT VALUE LOSSLESS THREADS ROUNDS" from standard input: VALUE is the
//  compression of a PNG, else the quality. Each of the threads encodes the picture that
//  often. Answers "CPU_MS WALL_MS BYTES": of the whole, and of one file.

#include "decoder/image/embed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"

#define THREADS_MAX 64

typedef struct order {
    luna_pixels pixels;
    luna_encode_options options;
    int rounds;
    size_t bytes;
    bool failed;
} order;

static luna_err encode_once(order *o)
{
    uint8_t *file = NULL;
    size_t len = 0;
    LUNA_TRY(luna_image_encode(&o->pixels, &o->options, &file, &len));
    const luna_err err = luna_image_embed(o->options.format, NULL, 0, &file, &len, NULL);
    o->bytes = len;
    free(file);
    return err;
}

static void *work(void *arg)
{
    order *o = arg;
    for (int i = 0; i < o->rounds && !o->failed; i++)
        o->failed = encode_once(o) != LUNA_OK;
    if (o->failed) fprintf(stderr, "%s\n", luna_error_text());
    luna_image_thread_end();
    return NULL;
}

//  Of the whole process: libvips has threads of its own.
static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool run(const order *each, int threads)
{
    pthread_t id[THREADS_MAX];
    order orders[THREADS_MAX];
    bool failed = false;
    const int64_t start_ns = luna_now_ns(), start_cpu_ns = cpu_ns();
    for (int i = 0; i < threads; i++) {
        orders[i] = *each;
        if (i > 0 && pthread_create(&id[i], NULL, work, &orders[i]) != 0) return false;
    }
    work(&orders[0]);
    for (int i = 0; i < threads; i++) {
        if (i > 0) pthread_join(id[i], NULL);
        failed = failed || orders[i].failed;
    }
    printf("%.3f %.3f %zu\n", (double)(cpu_ns() - start_cpu_ns) / 1e6,
           (double)(luna_now_ns() - start_ns) / 1e6, orders[0].bytes);
    fflush(stdout);
    return !failed;
}

static bool take_orders(const luna_pixels *pixels)
{
    char word[16];
    int value, lossless, threads, rounds;
    while (scanf("%15s %d %d %d %d", word, &value, &lossless, &threads, &rounds) == 5) {
        order o = {.pixels = *pixels,
                   .options = {.png_compression = value,
                               .lossy_quality = value,
                               .lossless = lossless != 0},
                   .rounds = rounds};
        if (luna_format_parse(word, strlen(word), &o.options.format) != LUNA_OK ||
            threads < 1 || threads > THREADS_MAX || !run(&o, threads))
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 64;
    const luna_pixels size = {.width = strtoul(argv[2], NULL, 10),
                              .height = strtoul(argv[3], NULL, 10),
                              .channels = 3,
                              .sample_bytes = 1};
    const size_t bytes = size.width * size.height * size.channels;
    uint8_t *data = malloc(bytes ? bytes : 1);
    FILE *from = fopen(argv[1], "rb");
    if (!data || !from || fread(data, 1, bytes, from) != bytes) return 66;
    fclose(from);
    if (luna_image_start() != LUNA_OK) return 70;
    luna_pixels pixels = size;
    pixels.data = data;
    const bool good = take_orders(&pixels);
    luna_image_stop();
    free(data);
    return good ? 0 : 70;
}
