// A pool of threads that work on one loop at a time. Its own threads are pinned to those cores of
// the process on which the caller is not; they spin a little between loops, then sleep.
#ifndef OSL_POOL_H
#define OSL_POOL_H

#include <stdint.h>

#include "common.h"

typedef struct osl_pool osl_pool;

// `threads` includes the caller; 0 means one for each core that the process may use. NULL where
// threads cannot be had.
OSL_API osl_pool *osl_pool_new(int32_t threads);
OSL_API void osl_pool_free(osl_pool *pool);
OSL_API int32_t osl_pool_threads(const osl_pool *pool);

// One piece of work: items [first, last) of a loop, on thread `thread`.
typedef void osl_work(void *context, int32_t thread, int32_t first, int32_t last);

// Runs items [0, count) in chunks of `chunk`, handed out as threads become free, and returns when
// all are done. Any thread may call it; two at once take turns. Not to be called from within work.
OSL_API void osl_pool_run(osl_pool *pool, int32_t count, int32_t chunk, osl_work *work,
                          void *context);

#endif
