// The products of attention with AVX2: rows are widened to float32 once, a line of keys or values
// whenever it is used, which costs little beside six rows.
#include "attention_decoder.h"
#include "kernels.h"

#if defined(OSL_X86)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = 8,
    MOST_ROWS = 6,
    MOST_LINES = 8,
    MOST_DIM = 256, // of rows as float32
};

// Keeps the compiler from going ahead of itself, for which it would move sums to memory.
#define IN_TURN(sum) __asm__("" : "+x"(sum))

INLINE __m256 low(const osl_pair *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)p), 16));
}

// By shifts: there is no register left for a mask.
INLINE __m256 high(const osl_pair *p) {
    __m256i both = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(both, 16), 16));
}

// `rows` of x, bf16 and `stride` apart, as float32 [rows][count]; count is a multiple of 8.
static void widen_rows(const osl_bf16 *x, int64_t stride, int32_t rows, int32_t count, float *to) {
    for (int32_t r = 0; r < rows; r++, x += stride, to += count)
        for (int32_t i = 0; i < count; i += LANES) {
            __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(x + i)));
            _mm256_storeu_ps(to + i, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
        }
}

// sum[r][8 lines] += pairs of x, `x_stride` apart by rows, times lines of pairs, `stride` apart.
INLINE void multiply(const float *x, int64_t x_stride, const osl_pair *pairs, int64_t stride,
                     int32_t count, __m256 sum[MOST_ROWS][MOST_LINES], const int rows,
                     const int lines) {
    for (int32_t c = 0; c < count; c++, pairs += stride, x += 2)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m256 line[MOST_LINES];
#pragma GCC unroll 8
            for (int l = 0; l < lines; l++)
                line[l] = half ? high(pairs + l * LANES) : low(pairs + l * LANES);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                const __m256 one = _mm256_set1_ps(x[r * x_stride + half]);
#pragma GCC unroll 8
                for (int l = 0; l < lines; l++) {
                    sum[r][l] = _mm256_fmadd_ps(line[l], one, sum[r][l]);
                    IN_TURN(sum[r][l]);
                }
            }
        }
}

INLINE void score_tile(const float *q, int32_t dim, const osl_pair *keys, float *score,
                       const int rows, const int lines) {
    for (int32_t key = 0; key < OSL_PAGE; key += lines * LANES) {
        __m256 sum[MOST_ROWS][MOST_LINES];
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < lines; l++)
                sum[r][l] = _mm256_setzero_ps();
        multiply(q, dim, keys + key, OSL_PAGE, dim / 2, sum, rows, lines);
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < lines; l++)
                _mm256_storeu_ps(score + r * OSL_KEYS + key + l * LANES, sum[r][l]);
    }
}

static void scores(const osl_bf16 *q, int32_t rows, int32_t dim, const osl_pair *keys,
                   float *score) {
    float wide[MOST_ROWS * MOST_DIM];
    for (int32_t r = 0, n; r < rows; r += n, q += n * dim, score += n * OSL_KEYS) {
        n = rows - r < MOST_ROWS ? rows - r : MOST_ROWS;
        n = n < MOST_ROWS && n > 2 ? 2 : n;
        widen_rows(q, dim, n, dim, wide);
        if (n == MOST_ROWS)
            score_tile(wide, dim, keys, score, MOST_ROWS, 2);
        else if (n == 2)
            score_tile(wide, dim, keys, score, 2, 4);
        else
            score_tile(wide, dim, keys, score, 1, 8);
    }
}

INLINE void weigh_tile(const float *weight, int32_t dim, const osl_pair *values, float *acc,
                       const int rows, const int lines) {
    for (int32_t d = 0; d < dim; d += lines * LANES) {
        __m256 sum[MOST_ROWS][MOST_LINES];
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < lines; l++)
                sum[r][l] = _mm256_loadu_ps(acc + r * dim + d + l * LANES);
        multiply(weight, OSL_PAGE, values + d, dim, OSL_PAGE / 2, sum, rows, lines);
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < lines; l++)
                _mm256_storeu_ps(acc + r * dim + d + l * LANES, sum[r][l]);
    }
}

static void weigh(const osl_bf16 *weight, int32_t rows, int32_t dim, const osl_pair *const *values,
                  int32_t pages, float *acc) {
    float wide[MOST_ROWS * OSL_PAGE];
    for (int32_t r = 0, n; r < rows; r += n, weight += n * OSL_KEYS, acc += n * dim) {
        n = rows - r < MOST_ROWS ? rows - r : MOST_ROWS;
        n = n < MOST_ROWS && n > 2 ? 2 : n;
        for (int32_t page = 0; page < pages; page++) {
            widen_rows(weight + page * OSL_PAGE, OSL_KEYS, n, OSL_PAGE, wide);
            if (n == MOST_ROWS)
                weigh_tile(wide, dim, values[page], acc, MOST_ROWS, 2);
            else if (n == 2)
                weigh_tile(wide, dim, values[page], acc, 2, 4);
            else
                weigh_tile(wide, dim, values[page], acc, 1, 4);
        }
    }
}

// An int8 as a float32 has nothing below its upper half.
static void widen(const int8_t *from, osl_pair *to, int32_t pairs) {
    for (int32_t i = 0; i < pairs; i += LANES, from += 2 * LANES, to += LANES) {
        __m256i both = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
        __m256 first = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(both, 16), 16));
        __m256 second = _mm256_cvtepi32_ps(_mm256_srai_epi32(both, 16));
        __m256i lower = _mm256_srli_epi32(_mm256_castps_si256(first), 16);
        _mm256_storeu_si256((__m256i *)to,
                            _mm256_or_si256(lower, _mm256_castps_si256(second)));
    }
}

const osl_paged_kernels osl_paged_avx2 = {"avx2", scores, weigh, widen};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
