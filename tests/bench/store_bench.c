//  store_bench.c - how long a durable accept takes, beside the bare file system
//
//  store_bench FOLDER [MiB ...]: for each size, jobs are put one at a time and eight at a
//  time into a new store in FOLDER (which must be empty and is left empty). The floor is
//  the same bytes by write, fdatasync, rename and a sync of the folder, with no row.
//  Prints milliseconds; the numbers mean nothing on another disk.

#include "broker/store/store.h"
#include "common/clock.h"
#include "common/file.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_RUNS 200
#define DEPTH    8

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_row(const char *what, double *ms, int count, double total_ms,
                      size_t bytes)
{
    qsort(ms, (size_t)count, sizeof *ms, by_value);
    printf("  %-14s p50 %7.2f  p95 %7.2f ms   %6.0f MB/s  %6.0f jobs/s\n", what,
           ms[count / 2], ms[count * 95 / 100], (double)bytes * count / total_ms / 1000.0,
           count / total_ms * 1000.0);
}

static double now_ms(void)
{
    return (double)luna_now_ns() / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "store_bench: %s: %s\n", what, luna_error_text());
    exit(74);
}

static luna_store_op *wait_one(luna_store *store)
{
    for (;;) {
        luna_store_op *op = luna_store_collect(store);
        if (op && op->err != LUNA_OK) die(op->detail);
        if (op) return op;
        struct pollfd wait = {.fd = luna_store_fd(store), .events = POLLIN};
        (void)poll(&wait, 1, -1);
    }
}

static void fill_put(luna_store_op *op, const void *body, size_t bytes)
{
    *op = (luna_store_op){.kind = LUNA_STORE_PUT, .id = luna_id_new()};
    op->in.put.body = (luna_blob){.data = body, .len = bytes};
    op->in.put.job.info.bytes = bytes;
    op->in.put.job.info.accepted_ms = (uint64_t)luna_wall_ms();
}

//  Completes a job, so that its pages and blocks are used again, as in a broker that
//  keeps up; not timed.
static void submit_finish(luna_store *store, luna_store_op *op, luna_id id)
{
    *op = (luna_store_op){.kind = LUNA_STORE_FINISH, .id = id};
    op->in.finish.state = LUNA_JOB_COMPLETED;
    luna_store_submit(store, op);
}

//  `depth` jobs in flight; the time of each from submit to back.
static void bench_store(luna_store *store, const void *body, size_t bytes, int runs,
                        int depth)
{
    static luna_store_op ops[MAX_RUNS], ends[MAX_RUNS];
    double start[MAX_RUNS], ms[MAX_RUNS];
    int sent = 0, ended = 0;
    const double begin = now_ms();
    while (ended < runs) {
        for (; sent < runs && sent - ended < depth; sent++) {
            fill_put(&ops[sent], body, bytes);
            start[sent] = now_ms();
            luna_store_submit(store, &ops[sent]);
        }
        const luna_store_op *op = wait_one(store);
        if (op->kind == LUNA_STORE_PUT) {
            ms[op - ops] = now_ms() - start[op - ops];
            submit_finish(store, &ends[op - ops], op->id);
        } else {
            ended++;
        }
    }
    print_row(depth == 1 ? "store, 1 job" : "store, 8 jobs", ms, runs, now_ms() - begin,
              bytes);
}

static void write_floor(const void *body, size_t bytes)
{
    const int fd = open("floor.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || luna_write_all(fd, body, bytes, "floor.tmp") != LUNA_OK) die("floor");
    if (fdatasync(fd) != 0 || close(fd) != 0) die("floor");
    if (rename("floor.tmp", "floor") != 0 || luna_sync_dir(".") != LUNA_OK) die("floor");
}

static void bench_floor(const void *body, size_t bytes, int runs)
{
    double ms[MAX_RUNS];
    const double begin = now_ms();
    for (int i = 0; i < runs; i++) {
        const double start = now_ms();
        write_floor(body, bytes);
        ms[i] = now_ms() - start;
        unlink("floor");
    }
    print_row("files alone", ms, runs, now_ms() - begin, bytes);
}

static void bench_size(size_t mib)
{
    luna_store *store = NULL;
    luna_store_jobs active;
    const luna_store_options options = {.state_dir = "state", .spool_dir = "spool"};
    const size_t bytes = mib << 20;
    const int runs = mib <= 4 ? MAX_RUNS : mib <= 16 ? 60 : 16;
    uint8_t *body = malloc(bytes);
    if (!body || luna_store_open(&options, &store, &active) != LUNA_OK) die("open");
    for (size_t i = 0; i < bytes; i++) body[i] = (uint8_t)(i * 2654435761u >> 13);
    printf("%zu MiB\n", mib);
    bench_store(store, body, bytes, runs, 1);
    bench_store(store, body, bytes, runs, DEPTH);
    luna_store_close(&store);
    bench_floor(body, bytes, runs);
    free(body);
}

int main(int argc, char **argv)
{
    if (argc < 2 || chdir(argv[1]) != 0) {
        fprintf(stderr, "usage: store_bench FOLDER [MiB ...]\n");
        return 64;
    }
    for (int i = 2; i < argc; i++) bench_size(strtoul(argv[i], NULL, 10));
    if (argc == 2) bench_size(4);
    static const char *const left[] = {"spool/LOCK", "state/luna.lock", "state/luna.db"};
    for (size_t i = 0; i < 3; i++) unlink(left[i]);
    static const char *const folders[] = {"spool/tmp", "spool/ready", "spool/quarantine",
                                          "spool", "state"};
    for (size_t i = 0; i < 5; i++) rmdir(folders[i]);
    return 0;
}
