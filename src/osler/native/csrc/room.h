// Memory for much: zeros, and pages that cost nothing before they are used.
#ifndef OSL_ROOM_H
#define OSL_ROOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *data; // on a 2 MiB boundary; NULL for none
    void *memory;  // what to free
} osl_room;

// The room's data is NULL where memory does not last.
osl_room osl_room_new(size_t bytes);

// Leaves no room; there may be none.
void osl_room_free(osl_room *room);

#endif
