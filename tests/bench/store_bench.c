//  store_bench.c - how long a durable accept takes, beside the bare file system
//
//  store_bench FOLDER [MiB ...] [jobs=N]: FOLDER must be empty and is left empty.
//
//  For each size, in turns so that all see the same disk: the floor (a fresh allocated
//  file, written whole, fdatasync), one job put and waited for, and bursts with eight in
//  flight that share their syncs. Everything is finished and removed again outside the
//  timed part. The ratio is p50 to the floor's p50; of eight in flight, the time a job
//  takes of the whole. Then a store with N waiting small jobs (10 000) is opened again.
//  Prints milliseconds; the numbers mean nothing on another disk.

#include "broker/store/store.h"
#include "common/clock.h"
#include "common/file.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_ROUNDS   400
#define DEPTH        8
#define BURST        32
#define BURST_EVERY  20  //  rounds
#define REOPEN_BYTES 4096

typedef struct series {
    const char *name;
    double ms[MAX_ROUNDS * BURST / BURST_EVERY + MAX_ROUNDS];
    size_t count;
    double total_ms;  //  of all its jobs together; 0: the sum
} series;

static double now_ms(void)
{
    return (double)luna_now_ns() / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "store_bench: %s: %s\n", what, luna_error_text());
    exit(74);
}

static void add(series *to, double ms)
{
    to->ms[to->count++] = ms;
    to->total_ms += ms;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const series *of, double q)
{
    return of->ms[(size_t)(q * (double)(of->count - 1))];
}

static void sort(series *of)
{
    qsort(of->ms, of->count, sizeof of->ms[0], by_value);
}

static void print_row(const series *of, size_t bytes, double ratio)
{
    printf("  %-12s p50 %7.2f  p95 %7.2f  p99 %7.2f ms  %6.0f MB/s  %5.2f x floor\n",
           of->name, quantile(of, 0.5), quantile(of, 0.95), quantile(of, 0.99),
           (double)bytes * (double)of->count / of->total_ms / 1000.0, ratio);
}

//  ---- a store --------------------------------------------------------------------

static luna_store *open_store(size_t want)
{
    luna_store *store = NULL;
    luna_store_jobs active;
    const luna_store_options options = {.state_dir = "state", .spool_dir = "spool"};
    if (luna_store_open(&options, &store, &active) != LUNA_OK) die("open");
    if (active.count != want) die("another number of jobs than were put");
    luna_store_jobs_free(&active);
    return store;
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

static void submit_put(luna_store *store, luna_store_op *op, luna_blob body)
{
    *op = (luna_store_op){.kind = LUNA_STORE_PUT, .id = luna_id_new()};
    op->in.put.body = body;
    op->in.put.job.info.bytes = body.len;
    op->in.put.job.info.accepted_ms = (uint64_t)luna_wall_ms();
    luna_store_submit(store, op);
}

//  Completes a job and waits until its payload is gone: its pages and blocks are then
//  used again, as in a broker that keeps up.
static void finish(luna_store *store, luna_id id)
{
    char path[4096];
    luna_store_op op = {.kind = LUNA_STORE_FINISH, .id = id};
    op.in.finish.state = LUNA_JOB_COMPLETED;
    luna_store_submit(store, &op);
    if (wait_one(store) != &op) die("finish");
    if (luna_store_payload_path(store, &id, path, sizeof path) != LUNA_OK) die("finish");
    while (access(path, F_OK) == 0) usleep(200);
}

//  ---- what is timed ----------------------------------------------------------------

static void run_floor(series *to, luna_blob body)
{
    const char *path = "spool/ready/floor";
    const double start = now_ms();
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)body.len) != 0) die("floor");
    if (luna_write_all(fd, body.data, body.len, path) != LUNA_OK) die("floor");
    if (fdatasync(fd) != 0) die("floor");
    add(to, now_ms() - start);
    close(fd);
    unlink(path);
}

static void run_one(series *to, luna_store *store, luna_blob body)
{
    luna_store_op op;
    const double start = now_ms();
    submit_put(store, &op, body);
    if (wait_one(store) != &op) die("put");
    add(to, now_ms() - start);
    finish(store, op.id);
}

//  Eight in flight until BURST are through. The sum of the series is the time of the
//  whole burst, not of its overlapping jobs.
static void run_burst(series *to, luna_store *store, luna_blob body)
{
    luna_store_op ops[BURST];
    double start[BURST];
    const double begin = now_ms(), total = to->total_ms;
    size_t sent = 0;
    for (size_t back = 0; back < BURST; back++) {
        for (; sent < BURST && sent - back < DEPTH; sent++) {
            start[sent] = now_ms();
            submit_put(store, &ops[sent], body);
        }
        const luna_store_op *op = wait_one(store);
        add(to, now_ms() - start[op - ops]);
    }
    to->total_ms = total + now_ms() - begin;
    for (size_t i = 0; i < BURST; i++) finish(store, ops[i].id);
}

static void print_size(size_t mib, size_t bytes, series *floor, series *one,
                       series *burst)
{
    sort(floor);
    sort(one);
    sort(burst);
    const double base = quantile(floor, 0.5);
    printf("%zu MiB\n", mib);
    print_row(floor, bytes, 1.0);
    print_row(one, bytes, quantile(one, 0.5) / base);
    print_row(burst, bytes, burst->total_ms / (double)burst->count / base);
    fflush(stdout);
}

static void bench_size(size_t mib)
{
    static series floor, one, burst;
    const size_t bytes = mib << 20;
    const int rounds = mib <= 4 ? MAX_ROUNDS : mib <= 16 ? 100 : 40;
    uint8_t *data = malloc(bytes);
    if (!data) die("no memory");
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);
    const luna_blob body = {.data = data, .len = bytes};
    floor = (series){.name = "floor"};
    one = (series){.name = "1 in flight"};
    burst = (series){.name = "8 in flight"};
    luna_store *store = open_store(0);
    for (int i = 0; i < rounds; i++) {
        if (i % 2) run_floor(&floor, body);
        run_one(&one, store, body);
        if (i % 2 == 0) run_floor(&floor, body);
        if (i % BURST_EVERY == 0) run_burst(&burst, store, body);
    }
    luna_store_close(&store);
    print_size(mib, bytes, &floor, &one, &burst);
    free(data);
}

//  ---- opening again -----------------------------------------------------------------

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static void put_many(luna_store *store, luna_id *ids, size_t count)
{
    static uint8_t data[REOPEN_BYTES];
    static luna_store_op ops[64];
    const luna_blob body = {.data = data, .len = sizeof data};
    for (size_t done = 0; done < count;) {
        const size_t n = count - done < 64 ? count - done : 64;
        for (size_t i = 0; i < n; i++) submit_put(store, &ops[i], body);
        for (size_t i = 0; i < n; i++) ids[done + i] = wait_one(store)->id;
        done += n;
    }
}

static void finish_many(luna_store *store, const luna_id *ids, size_t count)
{
    static luna_store_op ops[64];
    for (size_t done = 0; done < count;) {
        const size_t n = count - done < 64 ? count - done : 64;
        for (size_t i = 0; i < n; i++) {
            ops[i] = (luna_store_op){.kind = LUNA_STORE_FINISH, .id = ids[done + i]};
            ops[i].in.finish.state = LUNA_JOB_COMPLETED;
            luna_store_submit(store, &ops[i]);
        }
        for (size_t i = 0; i < n; i++) (void)wait_one(store);
        done += n;
    }
}

static void bench_reopen(size_t count)
{
    luna_id *ids = calloc(count + 1, sizeof *ids);
    if (!ids) die("no memory");
    luna_store *store = open_store(0);
    double start = now_ms();
    put_many(store, ids, count);
    const double put_ms = now_ms() - start;
    start = now_ms();
    luna_store_close(&store);
    const double close_ms = now_ms() - start;
    const long before = peak_kib();
    start = now_ms();
    store = open_store(count);
    printf(
        "%zu waiting jobs: put in %.0f ms, closed in %.0f ms, opened in %.0f ms, "
        "%ld KiB more at the peak\n",
        count, put_ms, close_ms, now_ms() - start, peak_kib() - before);
    finish_many(store, ids, count);
    luna_store_close(&store);
    free(ids);
}

static void empty(const char *folder)
{
    static const char *const left[] = {"spool/LOCK",        "state/luna.lock",
                                       "state/luna.db",     "state/reserve",
                                       "state/luna.db-wal", "state/luna.db-shm"};
    static const char *const folders[] = {"spool/tmp", "spool/ready", "spool/quarantine",
                                          "spool", "state"};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) unlink(left[i]);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        if (rmdir(folders[i]) != 0) fprintf(stderr, "%s/%s stays\n", folder, folders[i]);
}

int main(int argc, char **argv)
{
    size_t jobs = 10000;
    if (argc < 2 || chdir(argv[1]) != 0) {
        fprintf(stderr, "usage: store_bench FOLDER [MiB ...] [jobs=N]\n");
        return 64;
    }
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], "jobs=", 5) == 0)
            jobs = strtoul(argv[i] + 5, NULL, 10);
        else
            bench_size(strtoul(argv[i], NULL, 10));
    }
    if (jobs) bench_reopen(jobs);
    empty(argv[1]);
    return 0;
}
