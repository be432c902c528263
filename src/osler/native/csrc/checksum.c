// The checksum of packed files; native/checksum.py says what it is and has the same in numpy.
#include <stdint.h>
#include <string.h>

#include "common.h"

enum { LANES = 8 };

OSL_API void osl_checksum(uint64_t *sums, const uint8_t *data, int64_t lines);

// sums: [2][LANES], continued. data: `lines` times 64 bytes, little-endian words.
OSL_CLONES void osl_checksum(uint64_t *sums, const uint8_t *data, int64_t lines) {
    uint64_t first[LANES], second[LANES];
    memcpy(first, sums, sizeof first);
    memcpy(second, sums + LANES, sizeof second);
    for (int64_t i = 0; i < lines; i++) {
        uint64_t words[LANES];
        memcpy(words, data + i * sizeof words, sizeof words);
        for (int j = 0; j < LANES; j++) {
            first[j] += words[j];
            second[j] += first[j];
        }
    }
    memcpy(sums, first, sizeof first);
    memcpy(sums + LANES, second, sizeof second);
}
