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

// Cores' worth of time that a container may use; `cores` where nothing bounds it. Threads beyond
// that would only use up the share while they wait for one another.
static int32_t within_quota(int32_t cores) {
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    long long quota, period;
    if (!file)
        return cores;
    // "max 100000" has no number to read.
    if (fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
        long long whole = (quota + period - 1) / period;
        cores = whole < cores ? (int32_t)whole : cores;
    }
    fclose(file);
    return cores;
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
    *cores = within_quota(firsts > 0 ? firsts : 1);
    return found;
}
