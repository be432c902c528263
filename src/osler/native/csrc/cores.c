#define _GNU_SOURCE
#include "cores.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

// The first of the processors that share a core with this one; itself where nothing says so.
static int first_sibling(int processor) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             processor);
    FILE *file = fopen(path, "r");
    int first = processor;
    if (file) {
        if (fscanf(file, "%d", &first) != 1)
            first = processor;
        fclose(file);
    }
    return first;
}

int32_t osl_cores(int32_t *processors, int32_t limit, int32_t *cores) {
    cpu_set_t mask, seen;
    CPU_ZERO(&mask);
    CPU_ZERO(&seen);
    *cores = 1;
    if (sched_getaffinity(getpid(), sizeof mask, &mask) != 0)
        return 0;
    int32_t firsts = 0, found = 0;
    int32_t shared[CPU_SETSIZE], others = 0;
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (!CPU_ISSET(processor, &mask))
            continue;
        int core = first_sibling(processor);
        if (core >= 0 && core < CPU_SETSIZE && CPU_ISSET(core, &seen)) {
            shared[others++] = processor;
            continue;
        }
        if (core >= 0 && core < CPU_SETSIZE)
            CPU_SET(core, &seen);
        if (firsts < limit)
            processors[firsts] = processor;
        firsts++;
    }
    found = firsts;
    for (int32_t i = 0; i < others; i++, found++)
        if (found < limit)
            processors[found] = shared[i];
    *cores = firsts > 0 ? firsts : 1;
    return found;
}
