#include "decoder/vae/cuda/timing.h"

enum { ALIGN = 256 };

void *gpu_shelf_take(gpu_shelf *shelf, size_t bytes)
{
    void *at = shelf->base ? shelf->base + shelf->used : NULL;
    shelf->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

luna_err gpu_clock_open(gpu_clock *clock)
{
    *clock = (gpu_clock){.start = NULL};
    LUNA_TRY(gpu_check(cudaEventCreate(&clock->start), "a clock"));
    return gpu_check(cudaEventCreate(&clock->stop), "a clock");
}

void gpu_clock_close(gpu_clock *clock)
{
    if (clock->start) (void)cudaEventDestroy(clock->start);
    if (clock->stop) (void)cudaEventDestroy(clock->stop);
    *clock = (gpu_clock){.start = NULL};
}

luna_err gpu_clock_runs(const gpu_device *device, const gpu_clock *clock, gpu_work *work,
                        const void *what, int runs, float *ms)
{
    LUNA_TRY(gpu_check(cudaEventRecord(clock->start, device->stream), "a clock"));
    for (int i = 0; i < runs; i++) LUNA_TRY(work(what));
    LUNA_TRY(gpu_check(cudaEventRecord(clock->stop, device->stream), "a clock"));
    LUNA_TRY(gpu_check(cudaEventSynchronize(clock->stop), "a trial"));
    LUNA_TRY(gpu_check(cudaEventElapsedTime(ms, clock->start, clock->stop), "a clock"));
    *ms /= (float)runs;
    return LUNA_OK;
}
