// The cores that this process may use.
#ifndef OSL_CORES_H
#define OSL_CORES_H

#include <stdint.h>

// Writes up to `limit` processors of the process' affinity mask, one of each core first, then the
// others that share a core with one of them; returns how many there are (0 where the system does
// not say). `*cores` is how many threads are of use: the number of the former, or less where a
// container is given less time; at least 1.
int32_t osl_cores(int32_t *processors, int32_t limit, int32_t *cores);

#endif
