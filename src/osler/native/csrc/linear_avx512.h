// What the AVX-512 and AMX files share. Include it first of all: it sets the instructions that the
// rest of the file is compiled for: AVX-512 F, BW, VL, DQ, VNNI, and after OSL_WITH_BF16 or
// OSL_WITH_AMX what these say. A file ends with OSL_AVX512_END.
#ifndef OSL_LINEAR_AVX512_H
#define OSL_LINEAR_AVX512_H

#include "kernels.h"

#ifdef OSL_X86

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#define OSL_AVX512_END _Pragma("clang attribute pop")
#define OSL_TARGET(list) __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl," list)))
#if defined(OSL_WITH_AMX)
#pragma clang attribute push(                                                                      \
    OSL_TARGET("avx512dq,avx512vnni,avx512bf16,amx-tile,amx-int8,amx-bf16"), apply_to = function)
#elif defined(OSL_WITH_BF16)
#pragma clang attribute push(OSL_TARGET("avx512dq,avx512vnni,avx512bf16"), apply_to = function)
#else
#pragma clang attribute push(OSL_TARGET("avx512dq,avx512vnni"), apply_to = function)
#endif
#else
#define OSL_AVX512_END
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#if defined(OSL_WITH_AMX)
#pragma GCC target("avx512bf16,amx-tile,amx-int8,amx-bf16")
#elif defined(OSL_WITH_BF16)
#pragma GCC target("avx512bf16")
#endif
#endif

#define OSL_INLINE static inline __attribute__((always_inline))

enum {
    OSL_PAIR = 2 * OSL_ROW_BLOCK, // rows that are finished together: OSL_GEGLU wants pairs of blocks
    OSL_GROUP = 8,                // row blocks that are written together where there are many tokens
    OSL_AHEAD = 4096,             // bytes to prefetch ahead; with less, one core gets less bandwidth
    OSL_FEW = 8,                  // tokens at most in one pass of the kernels for few tokens
    OSL_INT4_COLS = 256,          // one unit of OSL_INT4: columns, bytes of nibbles, bytes in all
    OSL_INT4_NIBBLES = 2048,
    OSL_INT4_BYTES = 2112,
};

// Products of some tokens with a pair of row blocks: [token][row].
typedef float osl_tile[OSL_PAIR];

// Parts of at most `most`.
OSL_INLINE int32_t osl_parts(int32_t count, int32_t most) {
    return (count + most - 1) / most;
}

// Columns with the padding that the packed weights have.
OSL_INLINE int32_t osl_padded(int32_t cols, int32_t unit) {
    return osl_parts(cols, unit) * unit;
}

// Groups of activations in a row, and columns in a group of them.
OSL_INLINE int32_t osl_group_cols(const osl_acts *a) {
    return a->group < a->cols ? a->group : a->cols;
}

OSL_INLINE int32_t osl_groups(const osl_acts *a) {
    return osl_parts(a->cols, a->group);
}

// Tokens that are computed at once when `tokens` are to be cut into equal parts of at most `most`.
// The last part starts early enough to be whole, and what it repeats is thrown away.
OSL_INLINE int32_t osl_part(int32_t tokens, int32_t most) {
    return osl_parts(tokens, osl_parts(tokens, most));
}

// Four activations, or two in bf16, for all 16 rows.
OSL_INLINE __m512i osl_broadcast4(const void *p) {
    int32_t word;
    memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

OSL_INLINE __m512i osl_low_nibbles(__m512i v) {
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

OSL_INLINE __m512i osl_high_nibbles(__m512i v) {
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

// The multipliers of the 8 groups of an OSL_INT4 unit: bytes [group][16 rows], 1 to 16.
OSL_INLINE void osl_multipliers(const uint8_t *packed, uint8_t *bytes) {
    __m512i v = _mm512_loadu_si512(packed), one = _mm512_set1_epi8(1);
    __m512i low = _mm512_add_epi8(osl_low_nibbles(v), one);
    __m512i high = _mm512_add_epi8(osl_high_nibbles(v), one);
    __m512i even = _mm512_unpacklo_epi64(low, high), odd = _mm512_unpackhi_epi64(low, high);
    __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    _mm512_storeu_si512(bytes, _mm512_permutex2var_epi64(even, first, odd));
    _mm512_storeu_si512(bytes + 64, _mm512_permutex2var_epi64(even, second, odd));
}

// Writes tokens [token, token + n) of row blocks [block, block + blocks), at most OSL_GROUP: row
// scale, bias, and what `out` asks for. `next` is how many tiles each pair of blocks lies behind
// the one before.
void osl_emit_avx512(const osl_matrix *w, const osl_out *out, int32_t block, int32_t blocks,
                     int32_t token, int32_t n, osl_tile *tile, int64_t next);

void osl_fill_avx512(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last);

// The products of up to OSL_FEW tokens with one row block at a time, so that the weights are one
// sequential stream; each line of weights is unpacked once for all the tokens.
void osl_few_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                    int32_t last);

// osl_multiply by format; the rest of the formats use osl_few_avx512 for any number of tokens.
void osl_int8_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last);
void osl_int4_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last);
void osl_bf16_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last);
// The same with AVX512_BF16.
void osl_bf16_avx512bf16(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                         int32_t last);

// One unit of OSL_INT4 as int8 in OSL_INT8's layout: multiplier * (nibble - 8), 64 lines.
// Prefetches `ahead` bytes ahead.
OSL_INLINE void osl_widen(const uint8_t *unit, size_t ahead, int8_t *wide) {
    uint8_t bytes[128];
    osl_multipliers(unit + OSL_INT4_NIBBLES, bytes);
    _mm_prefetch((const char *)unit + OSL_INT4_NIBBLES + ahead, _MM_HINT_T0);
    for (int g = 0; g < 8; g++) {
        // A row's multiplier in every byte of its word. A product with 16-bit words that hold two
        // nibbles is right for both: 16 * 15 does not carry into the next byte.
        __m512i word = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(bytes + 16 * g)));
        __m512i factor = _mm512_or_si512(word, _mm512_slli_epi32(word, 16));
        __m512i eight = _mm512_slli_epi32(factor, 3);
        eight = _mm512_or_si512(eight, _mm512_slli_epi32(eight, 8));
#pragma GCC unroll 4
        for (int l = 0; l < 4; l++) {
            const uint8_t *line = unit + 256 * g + 64 * l;
            _mm_prefetch((const char *)line + ahead, _MM_HINT_T0);
            __m512i v = _mm512_loadu_si512(line);
            __m512i low = _mm512_mullo_epi16(osl_low_nibbles(v), factor);
            __m512i high = _mm512_mullo_epi16(osl_high_nibbles(v), factor);
            int8_t *to = wide + 512 * g + 128 * l;
            _mm512_storeu_si512(to, _mm512_sub_epi8(low, eight));
            _mm512_storeu_si512(to + 64, _mm512_sub_epi8(high, eight));
        }
    }
}

#endif
#endif
