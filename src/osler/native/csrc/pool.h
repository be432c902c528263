// A pool of threads that work on one loop at a time. Threads are pinned to the cores that the
// process may use; they spin a little between loops, then sleep.
#ifndef OSL_POOL_H
#define OSL_POOL_H

#include <stdint.h>

typedef struct osl_pool osl_pool;

// `threads` includes the caller; 0 means one for each core that the process may use. NULL where
// threads cannot be had.
osl_pool *osl_pool_new(int32_t threads);
void osl_pool_free(osl_pool *pool);
int32_t osl_pool_threads(const osl_pool *pool);

// One piece of work: items [first, last) of a loop, on thread `thread`.
typedef void osl_work(void *context, int32_t thread, int32_t first, int32_t last);

// Runs items [0, count) in chunks of `chunk`, handed out as threads become free, and returns when
// all are done. Not to be called from within work, nor from two threads at once.
void osl_pool_run(osl_pool *pool, int32_t count, int32_t chunk, osl_work *work, void *context);

#endif
