#define _DEFAULT_SOURCE // madvise

#include "room.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { HUGE_PAGE = 2 << 20 };

osl_room osl_room_new(size_t bytes) {
    osl_room room = {0};
    // calloc leaves large areas untouched.
    room.memory = calloc(1, bytes + HUGE_PAGE);
    if (!room.memory)
        return room;
    room.data =
        (uint8_t *)(((uintptr_t)room.memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
#if defined(MADV_HUGEPAGE)
    // A wish: in small pages, what lies far apart misses the address cache on every line.
    (void)madvise(room.data, bytes & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
    return room;
}

void osl_room_free(osl_room *room) {
    free(room->memory);
    *room = (osl_room){0};
}
