// AVX-512 VNNI, many tokens: 32 rows x 12 tokens at a time in registers. Int4 weights are widened
// to int8 a unit of 256 columns at a time, once for all the tokens of a part.
#include "linear_avx512.h"

#ifdef OSL_X86

enum {
    MANY = 12,        // tokens in one register tile
    WIDE_TOKENS = 256 // tokens that share one widening; their sums are on the stack (32 KiB)
};

typedef __m512i sums[2][MANY];

// Products of n tokens with `cols` columns of two row blocks of OSL_INT8, without scales.
OSL_INLINE void multiply_int8(const int8_t *w0, const int8_t *w1, const int8_t *q, int64_t stride,
                              int32_t cols, sums i, const int n) {
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    for (int32_t c = 0; c < cols; c += 4, w0 += 64, w1 += 64) {
        __m512i v0 = _mm512_xor_si512(_mm512_loadu_si512(w0), sign);
        __m512i v1 = _mm512_xor_si512(_mm512_loadu_si512(w1), sign);
#pragma GCC unroll 12
        for (int t = 0; t < n; t++) {
            __m512i x = osl_broadcast4(q + t * stride + c);
            i[0][t] = _mm512_dpbusd_epi32(i[0][t], v0, x);
            i[1][t] = _mm512_dpbusd_epi32(i[1][t], v1, x);
        }
    }
}

// tile += products with one group of activations; rows below `done` were counted before.
OSL_INLINE void add_group(const int8_t *w0, const int8_t *w1, const int8_t *q, int64_t stride,
                          int32_t cols, const float *scale, const int32_t *sum, int32_t sums_each,
                          int32_t groups, osl_tile *tile, int32_t done, const int n) {
    sums i;
#pragma GCC unroll 12
    for (int t = 0; t < n; t++) {
        int32_t s = 0;
        for (int32_t k = 0; k < sums_each; k++)
            s += sum[t * groups * sums_each + k];
        i[0][t] = i[1][t] = _mm512_set1_epi32(-128 * s);
    }
    multiply_int8(w0, w1, q, stride, cols, i, n);
#pragma GCC unroll 12
    for (int t = 0; t < n; t++) {
        if (t < done)
            continue;
        __m512 d = _mm512_set1_ps(scale[t * groups]);
        for (int b = 0; b < 2; b++) {
            float *to = tile[t] + b * OSL_ROW_BLOCK;
            _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(i[b][t]), d,
                                                 _mm512_loadu_ps(to)));
        }
    }
}

typedef void group_fn(const int8_t *w0, const int8_t *w1, const int8_t *q, int64_t stride,
                      int32_t cols, const float *scale, const int32_t *sum, int32_t sums_each,
                      int32_t groups, osl_tile *tile, int32_t done);
#define GROUP(n)                                                                                   \
    static void group_##n(const int8_t *w0, const int8_t *w1, const int8_t *q, int64_t stride,     \
                          int32_t cols, const float *scale, const int32_t *sum,                    \
                          int32_t sums_each, int32_t groups, osl_tile *tile, int32_t done) {       \
        add_group(w0, w1, q, stride, cols, scale, sum, sums_each, groups, tile, done, n);          \
    }
GROUP(1)
GROUP(2)
GROUP(3)
GROUP(4)
GROUP(5)
GROUP(6)
GROUP(7)
GROUP(8)
GROUP(9)
GROUP(10)
GROUP(11)
GROUP(12)
static group_fn *const add_groups[MANY + 1] = {0,       group_1, group_2,  group_3,  group_4,
                                               group_5, group_6, group_7,  group_8,  group_9,
                                               group_10, group_11, group_12};

void osl_int8_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    if (a->tokens <= OSL_FEW) {
        osl_few_avx512(w, a, out, first, last);
        return;
    }
    const int32_t groups = osl_groups(a), group = osl_group_cols(a), part = osl_part(a->tokens, MANY);
    const int32_t cols = osl_padded(a->cols, 64);
    const int64_t bytes = (int64_t)cols * OSL_ROW_BLOCK;
    for (int32_t block = first; block < last; block += 2) {
        const int32_t blocks = last - block < 2 ? 1 : 2;
        const int8_t *w0 = (const int8_t *)w->data + block * bytes;
        const int8_t *w1 = w0 + (blocks - 1) * bytes;
        for (int32_t start = 0; start < a->tokens; start += part) {
            const int32_t token = start + part > a->tokens ? a->tokens - part : start;
            const int32_t done = start - token;
            osl_tile tile[MANY];
            memset(tile, 0, sizeof tile);
            for (int32_t g = 0; g < groups; g++) {
                const int32_t c = g * group, end = g + 1 < groups ? c + group : cols;
                add_groups[part](w0 + 16 * (int64_t)c, w1 + 16 * (int64_t)c,
                                 (const int8_t *)a->values + token * a->stride + c, a->stride,
                                 end - c, a->scale + (int64_t)token * groups + g,
                                 a->sum + (int64_t)token * groups + g, 1, groups, tile, done);
            }
            osl_emit_avx512(w, out, block, blocks, start, part - done, tile + done, 0);
        }
    }
}

void osl_int4_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    if (a->tokens <= OSL_FEW) {
        osl_few_avx512(w, a, out, first, last);
        return;
    }
    const int32_t chunks = osl_groups(a), share = osl_part(a->tokens, WIDE_TOKENS);
    const size_t bytes = (size_t)chunks * OSL_INT4_BYTES;
    _Alignas(64) int8_t wide[2][OSL_INT4_COLS * OSL_ROW_BLOCK];
    _Alignas(64) osl_tile tile[WIDE_TOKENS];
    for (int32_t block = first; block < last; block += 2) {
        const int32_t blocks = last - block < 2 ? 1 : 2;
        const uint8_t *p = w->data + block * bytes;
        for (int32_t from = 0; from < a->tokens; from += share) {
            const int32_t tokens = a->tokens - from < share ? a->tokens - from : share;
            const int32_t part = osl_part(tokens, MANY);
            memset(tile, 0, sizeof *tile * (size_t)tokens);
            for (int32_t c = 0; c < chunks; c++) {
                for (int32_t b = 0; b < blocks; b++)
                    osl_widen(p + b * bytes + (size_t)c * OSL_INT4_BYTES, OSL_AHEAD, wide[b]);
                for (int32_t start = 0; start < tokens; start += part) {
                    const int32_t t = start + part > tokens ? tokens - part : start;
                    const int64_t row = from + t;
                    add_groups[part](wide[0], wide[blocks - 1],
                                     (const int8_t *)a->values + row * a->stride +
                                         (int64_t)c * OSL_INT4_COLS,
                                     a->stride, OSL_INT4_COLS, a->scale + row * chunks + c,
                                     a->sum + (row * chunks + c) * 8, 8, chunks, tile + t,
                                     start - t);
                }
            }
            osl_emit_avx512(w, out, block, blocks, from, tokens, tile, 0);
        }
    }
}

OSL_AVX512_END
#endif
