#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "cores.h"

enum { MAX_THREADS = 1024, SPIN_NS = 50000, PAUSES_A_LOOK = 16 };

typedef struct {
    osl_pool *pool;
    pthread_t handle;
    int32_t index;     // as work sees it; the caller is 0
    int32_t processor; // that it is pinned to
} worker;

// A chunk is taken by counting down the ticket. Its upper half is the number of the run, so that a
// thread that looked away for a whole run cannot take a chunk of it; its lower half is how many
// chunks are left. Who holds a chunk may read the run's description: it changes only after every
// chunk was reported as done.
struct osl_pool {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic int32_t done; // chunks of this run
    _Alignas(64) _Atomic int32_t sleepers;
    _Atomic bool caller_sleeps, stop;

    osl_work *work;
    void *context;
    int32_t count, chunk, chunks;

    uint32_t run;
    int32_t threads;
    bool pinned;
    int32_t caller_processor;
    int64_t spin_ns; // 0 where threads share cores: who spins then holds up who works
    worker *workers; // [threads - 1]
    pthread_mutex_t turn; // held by the caller of a run
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
};

static void rest_a_little(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool work_left(osl_pool *pool) {
    return (uint32_t)atomic_load(&pool->ticket) != 0;
}

// Takes chunks until none is left; returns how many.
static int32_t take_chunks(osl_pool *pool, int32_t thread) {
    int32_t taken = 0;
    uint64_t ticket = atomic_load(&pool->ticket);
    while ((uint32_t)ticket != 0) {
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1))
            continue;
        int32_t first = (pool->chunks - (int32_t)(uint32_t)ticket) * pool->chunk;
        int32_t left = pool->count - first;
        pool->work(pool->context, thread, first, first + (left < pool->chunk ? left : pool->chunk));
        taken++;
        ticket = atomic_load(&pool->ticket);
    }
    return taken;
}

// ------------------------------------------------------------------ the pool's own threads

static bool spin_for_work(osl_pool *pool) {
    for (int64_t end = now_ns() + pool->spin_ns; now_ns() < end;)
        for (int i = 0; i < PAUSES_A_LOOK; i++) {
            if (work_left(pool) || atomic_load(&pool->stop))
                return true;
            rest_a_little();
        }
    return false;
}

static void sleep_until_work(osl_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1); // before looking: who adds work looks here after that
    while (!work_left(pool) && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *live(void *argument) {
    const worker *self = argument;
    osl_pool *pool = self->pool;
    while (!atomic_load(&pool->stop)) {
        int32_t taken = take_chunks(pool, self->index);
        if (taken > 0) {
            atomic_fetch_add(&pool->done, taken);
            if (atomic_load(&pool->caller_sleeps)) {
                pthread_mutex_lock(&pool->lock);
                pthread_cond_signal(&pool->finished);
                pthread_mutex_unlock(&pool->lock);
            }
        }
        if (!spin_for_work(pool))
            sleep_until_work(pool);
    }
    return NULL;
}

static void pin(const worker *one) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(one->processor, &mask);
    // Where that is refused (the mask has changed), the thread runs wherever it may.
    (void)pthread_setaffinity_np(one->handle, sizeof mask, &mask);
}

static bool start(worker *one) {
    // Signals are for the threads of the program that the pool is in.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&one->handle, NULL, live, one) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started && one->pool->pinned)
        pin(one);
    return started;
}

// ------------------------------------------------------------------ the caller

osl_pool *osl_pool_new(int32_t threads) {
    int32_t processors[MAX_THREADS], cores;
    int32_t usable = osl_cores(processors, MAX_THREADS, &cores);
    if (threads <= 0)
        threads = cores;
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    size_t bytes = (sizeof(osl_pool) + 63) / 64 * 64;
    osl_pool *pool = aligned_alloc(64, bytes);
    worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!pool || !workers) {
        free(pool);
        free(workers);
        return NULL;
    }
    memset(pool, 0, bytes);
    pool->workers = workers;
    pool->threads = 1; // so far
    pool->pinned = usable >= threads;
    pool->spin_ns = pool->pinned ? SPIN_NS : 0;
    pool->caller_processor = processors[0];
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->finished, NULL);
    for (int32_t i = 1; i < threads; i++) {
        worker *one = &workers[i - 1];
        *one = (worker){.pool = pool, .index = i, .processor = pool->pinned ? processors[i] : 0};
        if (!start(one)) {
            osl_pool_free(pool);
            return NULL;
        }
        pool->threads++;
    }
    return pool;
}

void osl_pool_free(osl_pool *pool) {
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->threads - 1; i++)
        pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->turn);
    free(pool->workers);
    free(pool);
}

int32_t osl_pool_threads(const osl_pool *pool) {
    return pool->threads;
}

// The caller is not ours to pin (what it starts later would inherit that), so the worker that was
// on its processor makes room: it takes the one that the caller left.
static void make_room(osl_pool *pool) {
    int here = sched_getcpu();
    if (here < 0 || here == pool->caller_processor)
        return;
    for (int32_t i = 0; i < pool->threads - 1; i++)
        if (pool->workers[i].processor == here) {
            pool->workers[i].processor = pool->caller_processor;
            pin(&pool->workers[i]);
            break;
        }
    pool->caller_processor = here;
}

static void wake_workers(osl_pool *pool) {
    int32_t sleepers = atomic_load(&pool->sleepers), wanted = pool->chunks - 1;
    if (sleepers == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    if (wanted < sleepers)
        for (int32_t i = 0; i < wanted; i++)
            pthread_cond_signal(&pool->wake);
    else
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_the_others(osl_pool *pool) {
    if (atomic_load(&pool->done) == pool->chunks)
        return;
    for (int64_t end = now_ns() + pool->spin_ns; now_ns() < end;)
        for (int i = 0; i < PAUSES_A_LOOK; i++) {
            if (atomic_load(&pool->done) == pool->chunks)
                return;
            rest_a_little();
        }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->done) != pool->chunks)
        pthread_cond_wait(&pool->finished, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void osl_pool_run(osl_pool *pool, int32_t count, int32_t chunk, osl_work *work, void *context) {
    if (count <= 0)
        return;
    if (chunk < 1)
        chunk = 1;
    if (pool->threads == 1 || count <= chunk) {
        work(context, 0, 0, count);
        return;
    }
    pthread_mutex_lock(&pool->turn);
    if (pool->pinned)
        make_room(pool);
    pool->work = work;
    pool->context = context;
    pool->count = count;
    pool->chunk = chunk;
    pool->chunks = (count - 1) / chunk + 1;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, (uint64_t)++pool->run << 32 | (uint32_t)pool->chunks);
    wake_workers(pool);
    int32_t taken = take_chunks(pool, 0);
    atomic_fetch_add(&pool->done, taken);
    wait_for_the_others(pool);
    pthread_mutex_unlock(&pool->turn);
}
