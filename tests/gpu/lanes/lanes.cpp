#include "tests/gpu/lanes/lanes.h"

#include <setjmp.h>
#include <sys/random.h>
#include <ucontext.h>

#include <cstdio>
#include <memory>
#include <vector>

namespace lanes {

place here;
alignas(1024) unsigned char window[WINDOW_BYTES];

namespace {

enum { STACK_BYTES = 128 * 1024 };

struct copy {
    unsigned char *to;
    const void *from;
    size_t bytes;
    bool there;
};

//  Made once, and then for thread after thread of block after block. ucontext makes its
//  stack; setjmp goes to and fro, without a system call.
struct fiber {
    jmp_buf at;
    ucontext_t start;
    bool started = false;
    std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK_BYTES]};
    std::vector<copy> copies;
    unsigned puts = 0;
};

//  Those that have arrived wait until all members have.
struct barrier {
    int members = 0;
    std::vector<int> waiting;
};

struct warp {
    barrier meeting;
    alignas(SLOT_BYTES) unsigned char slots[2][WARP * SLOT_BYTES];
};

//  One block at a time.
std::vector<std::unique_ptr<fiber>> fibers;
std::vector<warp> warps;
barrier all;
std::vector<int> ready;
jmp_buf scheduler;
int current;
const std::function<void()> *work;

uint64_t lot()
{
    static uint64_t seed = 0;
    if (seed == 0) {
        const char *wish = getenv("LUNA_LANES_SEED");
        if (wish)
            seed = strtoull(wish, NULL, 10) | 1;
        else if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
            seed = 1;
        printf("lanes: LUNA_LANES_SEED=%llu\n", (unsigned long long)(seed |= 1));
    }
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

//  Until it is this fiber's turn again.
void stop()
{
    if (_setjmp(fibers[current]->at) == 0) _longjmp(scheduler, 1);
}

void let_go_if_all_are_there(barrier &b)
{
    if (b.members == 0 || (int)b.waiting.size() < b.members) return;
    ready.insert(ready.end(), b.waiting.begin(), b.waiting.end());
    b.waiting.clear();
}

void meet(barrier &b)
{
    b.waiting.push_back(current);
    let_go_if_all_are_there(b);
    stop();
}

warp &my_warp()
{
    return warps[current / WARP];
}

//  One that has ended is not waited for any more.
void leave(barrier &b)
{
    b.members--;
    let_go_if_all_are_there(b);
}

void begin()
{
    for (;;) {
        (*work)();
        if (!fibers[current]->copies.empty()) {
            fprintf(stderr, "lanes: a thread ended before its copies were there\n");
            abort();
        }
        leave(my_warp().meeting);
        leave(all);
        stop();
    }
}

void make_ready(int i)
{
    while ((int)fibers.size() <= i) fibers.emplace_back(new fiber);
    fibers[i]->puts = 0;
    warps[i / WARP].meeting.members++;
    all.members++;
    ready.push_back(i);
}

void start(fiber &f)
{
    f.started = true;
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = f.stack.get();
    f.start.uc_stack.ss_size = STACK_BYTES;
    f.start.uc_link = NULL;
    makecontext(&f.start, begin, 0);
    setcontext(&f.start);
}

void go_on_with(int i)
{
    current = i;
    here.thread = uint3{(unsigned)i, 0, 0};
    if (_setjmp(scheduler) != 0) return;
    if (!fibers[i]->started) start(*fibers[i]);
    _longjmp(fibers[i]->at, 1);
}

//  For a while one warp goes on as long as it can, so that it gets far ahead of the
//  others; then another.
size_t draw_place()
{
    static int favourite, turns;
    if (turns-- == 0) {
        favourite = (int)(lot() % warps.size());
        turns = (int)(lot() % 1000);
    }
    const size_t first = lot() % ready.size();
    for (size_t i = 0; i < ready.size(); i++)
        if (ready[(first + i) % ready.size()] / WARP == favourite)
            return (first + i) % ready.size();
    return first;
}

int draw()
{
    std::swap(ready[draw_place()], ready.back());
    const int next = ready.back();
    ready.pop_back();
    return next;
}

void run_block(int threads)
{
    warps.assign((threads + WARP - 1) / WARP, warp());
    all = barrier();
    memset(window, 0xff, sizeof window);
    for (int i = 0; i < threads; i++) make_ready(i);
    while (!ready.empty()) go_on_with(draw());
    if (all.members == 0) return;
    fprintf(stderr, "lanes: %d threads wait for each other\n", all.members);
    abort();
}

}  //  namespace

void sync_block()
{
    meet(all);
}

void sync_warp()
{
    meet(my_warp().meeting);
}

const unsigned char *put(const void *mine, size_t bytes)
{
    unsigned char *slots = my_warp().slots[fibers[current]->puts++ % 2];
    if (bytes > SLOT_BYTES) abort();
    memcpy(slots + current % WARP * SLOT_BYTES, mine, bytes);
    sync_warp();
    return slots;
}

void ask_for_copy(unsigned char *to, const void *from, size_t bytes, bool there)
{
    fibers[current]->copies.push_back(copy{to, from, bytes, there});
}

void wait_for_copies()
{
    for (const copy &c : fibers[current]->copies) {
        if (c.there)
            memcpy(c.to, c.from, c.bytes);
        else
            memset(c.to, 0, c.bytes);
    }
    fibers[current]->copies.clear();
}

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel)
{
    if (shared_bytes > WINDOW_BYTES || block.y != 1 || block.z != 1) abort();
    work = &kernel;
    here.block_size = block;
    here.grid_size = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                here.block = uint3{x, y, z};
                run_block((int)block.x);
            }
}

}  //  namespace lanes
