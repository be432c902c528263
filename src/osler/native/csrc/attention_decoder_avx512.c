// The products of attention with AVX512_BF16: vdpbf16ps multiplies pairs of bf16, so a line of keys
// is 16 keys times one pair of dimensions, a line of values 16 dimensions times one pair of keys,
// and no sum runs across a register.
#include "attention_decoder.h"
#include "kernels.h"

#if defined(OSL_X86)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = 16,
    LINES = OSL_PAGE / LANES, // of keys for one pair of dimensions
    TILE_ROWS = 6,            // times 4 registers of sums: 24 of the 32
    TILE_LINES = 4,
    FEW = 4,                  // rows that wait for memory, not for each other
    FEW_LINES = 16,
    AHEAD = 4096,             // bytes from memory to ask for in advance
};

INLINE __m512bh line(const osl_pair *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}

INLINE __m512bh pair(const osl_bf16 *p) {
    int32_t both;
    memcpy(&both, p, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

INLINE void score_rows(const osl_bf16 *q, int32_t dim, const osl_pair *keys, float *score,
                       const int rows) {
    __m512 sum[TILE_ROWS][LINES];
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < LINES; l++)
            sum[r][l] = _mm512_setzero_ps();
    for (int32_t d = 0; d < dim; d += 2, keys += OSL_PAGE) {
        __m512bh k[LINES];
#pragma GCC unroll 4
        for (int l = 0; l < LINES; l++) {
            k[l] = line(keys + l * LANES);
            if (rows <= FEW)
                _mm_prefetch((const char *)(keys + l * LANES) + AHEAD, _MM_HINT_T0);
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512bh both = pair(q + r * dim + d);
#pragma GCC unroll 4
            for (int l = 0; l < LINES; l++)
                sum[r][l] = _mm512_dpbf16_ps(sum[r][l], k[l], both);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < LINES; l++)
            _mm512_storeu_ps(score + r * OSL_KEYS + l * LANES, sum[r][l]);
}

static void scores(const osl_bf16 *q, int32_t rows, int32_t dim, const osl_pair *keys,
                   float *score) {
    for (int32_t r = 0; r < rows; r += TILE_ROWS, q += TILE_ROWS * dim,
                 score += TILE_ROWS * OSL_KEYS)
        switch (rows - r) {
        case 1:
            score_rows(q, dim, keys, score, 1);
            break;
        case 2:
            score_rows(q, dim, keys, score, 2);
            break;
        case 3:
            score_rows(q, dim, keys, score, 3);
            break;
        case 4:
            score_rows(q, dim, keys, score, 4);
            break;
        case 5:
            score_rows(q, dim, keys, score, 5);
            break;
        default:
            score_rows(q, dim, keys, score, 6);
        }
}

// One page: so many rows times so many lines of dimensions from d on.
INLINE void weigh_tile(const osl_bf16 *weight, int32_t dim, const osl_pair *values, float *acc,
                       const int rows, const int lines) {
    __m512 sum[TILE_ROWS][FEW_LINES];
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < lines; l++)
            sum[r][l] = _mm512_loadu_ps(acc + r * dim + l * LANES);
    for (int32_t j = 0; j < OSL_PAGE; j += 2, values += dim) {
        __m512bh both[TILE_ROWS];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            both[r] = pair(weight + r * OSL_KEYS + j);
#pragma GCC unroll 16
        for (int l = 0; l < lines; l++) {
            __m512bh v = line(values + l * LANES);
            if (rows == 1)
                _mm_prefetch((const char *)(values + l * LANES) + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                sum[r][l] = _mm512_dpbf16_ps(sum[r][l], v, both[r]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < lines; l++)
            _mm512_storeu_ps(acc + r * dim + l * LANES, sum[r][l]);
}

INLINE void weigh_rows(const osl_bf16 *weight, int32_t dim, const osl_pair *values, float *acc,
                       const int rows) {
    int32_t d = 0;
    if (rows == 1)
        for (; d + FEW_LINES * LANES <= dim; d += FEW_LINES * LANES)
            weigh_tile(weight, dim, values + d, acc + d, 1, FEW_LINES);
    for (; d + TILE_LINES * LANES <= dim; d += TILE_LINES * LANES)
        weigh_tile(weight, dim, values + d, acc + d, rows, TILE_LINES);
    for (; d < dim; d += LANES)
        weigh_tile(weight, dim, values + d, acc + d, rows, 1);
}

static void weigh(const osl_bf16 *weight, int32_t rows, int32_t dim, const osl_pair *const *values,
                  int32_t pages, float *acc) {
    for (int32_t page = 0; page < pages; page++, weight += OSL_PAGE) {
        int32_t r = 0;
        for (; rows > FEW && r + TILE_ROWS <= rows; r += TILE_ROWS)
            weigh_rows(weight + r * OSL_KEYS, dim, values[page], acc + r * dim, TILE_ROWS);
        for (; r < rows; r++)
            weigh_rows(weight + r * OSL_KEYS, dim, values[page], acc + r * dim, 1);
    }
}

const osl_paged_kernels osl_paged_avx512 = {"avx512", scores, weigh, osl_widen_vbmi};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
