#include "producer/luna/buffer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SMALL_BYTES     65536U      //  below: malloc is as good, not kept
#define HUGE_PAGE_BYTES (2U << 20)  //  x86-64 and arm64 with 4 KiB pages
#define KEEP_COUNT      32

struct luna_pool {
    pthread_mutex_t lock;
    luna_buffer *unused;
    size_t unused_bytes;
    size_t unused_count;
    size_t keep_bytes;
};

luna_pool *luna_pool_new(size_t keep_bytes)
{
    luna_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pool->keep_bytes = keep_bytes;
    return pool;
}

static void buffer_free(luna_buffer *buffer)
{
    free(buffer->data);
    free(buffer);
}

void luna_pool_free(luna_pool *pool)
{
    if (!pool) return;
    while (pool->unused) {
        luna_buffer *buffer = pool->unused;
        pool->unused = buffer->next;
        buffer_free(buffer);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

//  Sizes are rounded up so that jobs of nearly one size share buffers.
static size_t rounded(size_t bytes)
{
    const size_t step = bytes < HUGE_PAGE_BYTES ? SMALL_BYTES : HUGE_PAGE_BYTES;
    return bytes > SIZE_MAX - step ? 0 : (bytes + step - 1) / step * step;
}

//  Huge pages where the kernel has some: a twentieth of the page faults.
static uint8_t *allocate(size_t capacity)
{
    if (capacity < HUGE_PAGE_BYTES) return malloc(capacity);
    uint8_t *data = aligned_alloc(HUGE_PAGE_BYTES, capacity);
    if (data) (void)madvise(data, capacity, MADV_HUGEPAGE);
    return data;
}

static luna_buffer *buffer_new(luna_pool *pool, size_t bytes)
{
    const size_t capacity = bytes < SMALL_BYTES ? bytes + 1 : rounded(bytes);
    luna_buffer *buffer = capacity ? calloc(1, sizeof *buffer) : NULL;
    if (!buffer) return NULL;
    buffer->data = allocate(capacity);
    buffer->capacity = capacity;
    buffer->pool = pool;
    atomic_init(&buffer->refs, 1);
    if (buffer->data) return buffer;
    free(buffer);
    return NULL;
}

//  The smallest unused buffer that is large enough, taken out of the list.
static luna_buffer *find_unused(luna_pool *pool, size_t bytes)
{
    luna_buffer **best = NULL;
    for (luna_buffer **at = &pool->unused; *at; at = &(*at)->next)
        if ((*at)->capacity >= bytes && (!best || (*at)->capacity < (*best)->capacity))
            best = at;
    if (!best) return NULL;
    luna_buffer *buffer = *best;
    *best = buffer->next;
    pool->unused_bytes -= buffer->capacity;
    pool->unused_count--;
    return buffer;
}

luna_buffer *luna_pool_take(luna_pool *pool, size_t bytes)
{
    luna_buffer *buffer = NULL;
    if (bytes >= SMALL_BYTES) {
        pthread_mutex_lock(&pool->lock);
        buffer = find_unused(pool, bytes);
        pthread_mutex_unlock(&pool->lock);
    }
    if (!buffer) return buffer_new(pool, bytes);
    buffer->next = NULL;
    atomic_store(&buffer->refs, 1);
    return buffer;
}

void luna_pool_warm(luna_pool *pool, size_t bytes)
{
    luna_buffer *buffer = buffer_new(pool, bytes);
    if (!buffer) return;
    memset(buffer->data, 0, buffer->capacity);
    luna_buffer_release(buffer);
}

luna_buffer *luna_buffer_hold(luna_buffer *buffer)
{
    atomic_fetch_add(&buffer->refs, 1);
    return buffer;
}

static int pool_keep(luna_pool *pool, luna_buffer *buffer)
{
    if (buffer->capacity < SMALL_BYTES) return 0;
    pthread_mutex_lock(&pool->lock);
    const int keep = pool->unused_count < KEEP_COUNT &&
                     buffer->capacity <= pool->keep_bytes - pool->unused_bytes;
    if (keep) {
        buffer->next = pool->unused;
        pool->unused = buffer;
        pool->unused_bytes += buffer->capacity;
        pool->unused_count++;
    }
    pthread_mutex_unlock(&pool->lock);
    return keep;
}

void luna_buffer_release(luna_buffer *buffer)
{
    if (!buffer || atomic_fetch_sub(&buffer->refs, 1) != 1) return;
    if (!pool_keep(buffer->pool, buffer)) buffer_free(buffer);
}

void luna_buffer_release_chain(luna_buffer *chain)
{
    while (chain) {
        luna_buffer *next = chain->next;
        luna_buffer_release(chain);
        chain = next;
    }
}
