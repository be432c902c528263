// The largest of many values, for picking among a vocabulary.
#include <stdint.h>

#include "common.h"

enum { BLOCK = 64 };

// The largest of BLOCK values; a NaN is none.
static inline __attribute__((always_inline)) float largest(const float *x) {
    float most[16];
    for (int l = 0; l < 16; l++)
        most[l] = x[l];
    for (int i = 16; i < BLOCK; i += 16)
        for (int l = 0; l < 16; l++)
            most[l] = x[i + l] > most[l] ? x[i + l] : most[l];
    float top = most[0];
    for (int l = 1; l < 16; l++)
        top = most[l] > top ? most[l] : top;
    return top;
}

// Keeps `ids` in order, best first, equal values in the order of their ids.
static int32_t insert(const float *x, int32_t id, int32_t kept, int32_t k, int32_t *ids) {
    int32_t place = kept < k ? kept : k - 1;
    for (; place > 0 && x[id] > x[ids[place - 1]]; place--)
        ids[place] = ids[place - 1];
    ids[place] = id;
    return kept < k ? kept + 1 : k;
}

// Writes the places of the k largest of n values, best first; k is at most n, and small: whatever
// enters the list moves what is behind it. No value is a NaN.
OSL_API void osl_top_k(const float *x, int32_t n, int32_t k, int32_t *ids);

OSL_CLONES void osl_top_k(const float *x, int32_t n, int32_t k, int32_t *ids) {
    int32_t kept = 0;
    for (int32_t first = 0; first < n; first += BLOCK) {
        int32_t last = n - first < BLOCK ? n : first + BLOCK;
        // Few blocks hold one that is larger than all but k of those before.
        if (kept == k && last - first == BLOCK && largest(x + first) <= x[ids[k - 1]])
            continue;
        for (int32_t id = first; id < last; id++)
            if (kept < k || x[id] > x[ids[k - 1]])
                kept = insert(x, id, kept, k, ids);
    }
}
