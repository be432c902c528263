// AVX-512 VNNI, few tokens: int8 activations times int8 and int4 weights as they come from memory.
//
// vpdpbusd multiplies unsigned by signed bytes, so weights are shifted to unsigned (+8 or +128) and
// the sum of the activations times that shift is subtracted: exact, and free of work per row.
#include "linear_avx512.h"

#ifdef OSL_X86

// One row block, n tokens; n is a constant in each copy. `tile` points at the block's 16 columns.
typedef void few_fn(const osl_acts *a, const uint8_t *p, int32_t token, float *tile);

OSL_INLINE void few_int4(const osl_acts *a, const uint8_t *p, int32_t token, float *tile,
                         const int n) {
    const int32_t chunks = osl_groups(a);
    const int8_t *q = (const int8_t *)a->values + token * a->stride;
    const float *scale = a->scale + (int64_t)token * chunks;
    const int32_t *sum = a->sum + (int64_t)token * chunks * 8;
    // With one or two tokens there are registers for a second chain of sums. The high nibbles are
    // then taken where they are, times 16, which saves shifting every line.
    const int split = n <= 2;
    const __m512i low_mask = _mm512_set1_epi8(15), high_mask = _mm512_set1_epi8((char)0xf0);
    __m512 f[OSL_FEW];
    for (int t = 0; t < n; t++)
        f[t] = _mm512_setzero_ps();
    for (int32_t c = 0; c < chunks; c++, p += OSL_INT4_BYTES) {
        uint8_t factors[128];
        int32_t start[OSL_FEW][8]; // -8 times the sum of each group's activations
        osl_multipliers(p + OSL_INT4_NIBBLES, factors);
        _mm_prefetch((const char *)p + OSL_INT4_NIBBLES + OSL_AHEAD, _MM_HINT_T0);
        __m512i total[OSL_FEW];
        for (int t = 0; t < n; t++) {
            __m256i s = _mm256_loadu_si256((const __m256i *)(sum + (t * chunks + c) * 8));
            s = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(s, 3));
            _mm256_storeu_si256((__m256i *)start[t], s);
            total[t] = _mm512_setzero_si512();
        }
        for (int g = 0; g < 8; g++) {
            __m512i low[OSL_FEW], high[OSL_FEW];
            for (int t = 0; t < n; t++) {
                low[t] = _mm512_set1_epi32(start[t][g]);
                high[t] = _mm512_setzero_si512();
            }
#pragma GCC unroll 4
            for (int l = 0; l < 4; l++) {
                const uint8_t *line = p + 256 * g + 64 * l;
                _mm_prefetch((const char *)line + OSL_AHEAD, _MM_HINT_T0);
                __m512i v = _mm512_loadu_si512(line);
                __m512i v0 = _mm512_and_si512(v, low_mask);
                __m512i v1 = split ? _mm512_and_si512(v, high_mask) : osl_high_nibbles(v);
#pragma GCC unroll 8
                for (int t = 0; t < n; t++) {
                    const int8_t *x = q + t * a->stride + 256 * c + 32 * g + 8 * l;
                    low[t] = _mm512_dpbusd_epi32(low[t], v0, osl_broadcast4(x));
                    if (split)
                        high[t] = _mm512_dpbusd_epi32(high[t], v1, osl_broadcast4(x + 4));
                    else
                        low[t] = _mm512_dpbusd_epi32(low[t], v1, osl_broadcast4(x + 4));
                }
            }
            // A group's product fits in 16 bits, so the lower half of the word times the multiplier
            // (whose upper half is 0) is all of it.
            __m512i factor =
                _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(factors + 16 * g)));
            for (int t = 0; t < n; t++) {
                if (split)
                    low[t] = _mm512_add_epi32(low[t], _mm512_srai_epi32(high[t], 4));
                total[t] = _mm512_dpwssd_epi32(total[t], low[t], factor);
            }
        }
        for (int t = 0; t < n; t++)
            f[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[t]),
                                   _mm512_set1_ps(scale[t * chunks + c]), f[t]);
    }
    for (int t = 0; t < n; t++)
        _mm512_storeu_ps(tile + t * OSL_PAIR, f[t]);
}

OSL_INLINE void few_int8(const osl_acts *a, const uint8_t *p, int32_t token, float *tile,
                         const int n) {
    const int chains = n == 1 ? 4 : n == 2 ? 2 : 1;
    const int32_t groups = osl_groups(a), group = osl_group_cols(a);
    const int32_t cols = osl_padded(a->cols, 64);
    const int8_t *q = (const int8_t *)a->values + token * a->stride;
    const float *scale = a->scale + (int64_t)token * groups;
    const int32_t *sum = a->sum + (int64_t)token * groups;
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    __m512 f[OSL_FEW];
    for (int t = 0; t < n; t++)
        f[t] = _mm512_setzero_ps();
    for (int32_t g = 0; g < groups; g++) {
        const int32_t end = g + 1 < groups ? (g + 1) * group : cols;
        __m512i i[OSL_FEW][4];
        for (int t = 0; t < n; t++) {
            i[t][0] = _mm512_set1_epi32(-128 * sum[t * groups + g]);
            for (int k = 1; k < chains; k++)
                i[t][k] = _mm512_setzero_si512();
        }
        for (int32_t c = g * group; c < end; c += 16) {
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++, p += 64) {
                _mm_prefetch((const char *)p + OSL_AHEAD, _MM_HINT_T0);
                __m512i v = _mm512_xor_si512(_mm512_loadu_si512(p), sign);
#pragma GCC unroll 8
                for (int t = 0; t < n; t++)
                    i[t][k % chains] = _mm512_dpbusd_epi32(
                        i[t][k % chains], v, osl_broadcast4(q + t * a->stride + c + 4 * k));
            }
        }
        for (int t = 0; t < n; t++) {
            for (int k = 1; k < chains; k++)
                i[t][0] = _mm512_add_epi32(i[t][0], i[t][k]);
            f[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i[t][0]),
                                   _mm512_set1_ps(scale[t * groups + g]), f[t]);
        }
    }
    for (int t = 0; t < n; t++)
        _mm512_storeu_ps(tile + t * OSL_PAIR, f[t]);
}

// OSL_Q4_0 and OSL_Q8_0: groups of 32 columns, a scale for each row in each group.
OSL_INLINE void few_grouped(const osl_acts *a, const uint8_t *p, int32_t token, float *tile,
                            const int n, const int nibbles) {
    const int32_t groups = osl_groups(a), bytes = nibbles ? 256 : 512;
    const int8_t *q = (const int8_t *)a->values + token * a->stride;
    const float *scale = a->scale + (int64_t)token * groups;
    const int32_t *sum = a->sum + (int64_t)token * groups;
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    __m512 f[OSL_FEW];
    for (int t = 0; t < n; t++)
        f[t] = _mm512_setzero_ps();
    for (int32_t g = 0; g < groups; g++, p += bytes + 32) {
        const int8_t *x = q + 32 * g;
        __m512i i[OSL_FEW], j[OSL_FEW];
        for (int t = 0; t < n; t++) {
            i[t] = _mm512_set1_epi32((nibbles ? -8 : -128) * sum[t * groups + g]);
            j[t] = _mm512_setzero_si512();
        }
        _mm_prefetch((const char *)p + bytes + OSL_AHEAD, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int l = 0; l < 4; l++) {
            const uint8_t *line = p + bytes / 4 * l;
            __m512i v = _mm512_loadu_si512(line), v0, v1;
            _mm_prefetch((const char *)line + OSL_AHEAD, _MM_HINT_T0);
            if (nibbles) {
                v0 = osl_low_nibbles(v);
                v1 = osl_high_nibbles(v);
            } else {
                v0 = _mm512_xor_si512(v, sign);
                v1 = _mm512_xor_si512(_mm512_loadu_si512(line + 64), sign);
                _mm_prefetch((const char *)line + 64 + OSL_AHEAD, _MM_HINT_T0);
            }
#pragma GCC unroll 8
            for (int t = 0; t < n; t++) {
                const int8_t *at = x + t * a->stride + 8 * l;
                i[t] = _mm512_dpbusd_epi32(i[t], v0, osl_broadcast4(at));
                if (n <= 2)
                    j[t] = _mm512_dpbusd_epi32(j[t], v1, osl_broadcast4(at + 4));
                else
                    i[t] = _mm512_dpbusd_epi32(i[t], v1, osl_broadcast4(at + 4));
            }
        }
        __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + bytes)));
        for (int t = 0; t < n; t++) {
            if (n <= 2)
                i[t] = _mm512_add_epi32(i[t], j[t]);
            __m512 s = _mm512_mul_ps(d, _mm512_set1_ps(scale[t * groups + g]));
            f[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i[t]), s, f[t]);
        }
    }
    for (int t = 0; t < n; t++)
        _mm512_storeu_ps(tile + t * OSL_PAIR, f[t]);
}

#define FEW(n)                                                                                     \
    static void int8_##n(const osl_acts *a, const uint8_t *p, int32_t token, float *tile) {        \
        few_int8(a, p, token, tile, n);                                                            \
    }                                                                                              \
    static void int4_##n(const osl_acts *a, const uint8_t *p, int32_t token, float *tile) {        \
        few_int4(a, p, token, tile, n);                                                            \
    }                                                                                              \
    static void q8_0_##n(const osl_acts *a, const uint8_t *p, int32_t token, float *tile) {        \
        few_grouped(a, p, token, tile, n, 0);                                                      \
    }                                                                                              \
    static void q4_0_##n(const osl_acts *a, const uint8_t *p, int32_t token, float *tile) {        \
        few_grouped(a, p, token, tile, n, 1);                                                      \
    }
FEW(1)
FEW(2)
FEW(3)
FEW(4)
FEW(5)
FEW(6)
FEW(7)
FEW(8)

#define ALL(kind)                                                                                  \
    { 0, kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6, kind##_7, kind##_8 }
static few_fn *const kernels[5][OSL_FEW + 1] = {
    [OSL_INT8] = ALL(int8), [OSL_INT4] = ALL(int4), [OSL_Q8_0] = ALL(q8_0), [OSL_Q4_0] = ALL(q4_0)};

static size_t block_bytes(int32_t format, int32_t cols) {
    switch (format) {
    case OSL_INT8:
        return (size_t)osl_padded(cols, 64) * OSL_ROW_BLOCK;
    case OSL_INT4:
        return (size_t)osl_padded(cols, OSL_INT4_COLS) / OSL_INT4_COLS * OSL_INT4_BYTES;
    case OSL_Q8_0:
        return (size_t)osl_padded(cols, 32) / 32 * 544;
    default:
        return (size_t)osl_padded(cols, 32) / 32 * 288;
    }
}

void osl_few_avx512(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                    int32_t last) {
    const size_t bytes = block_bytes(w->format, w->cols);
    const int32_t part = osl_part(a->tokens, OSL_FEW);
    for (int32_t block = first; block < last; block += 2) {
        const int32_t blocks = last - block < 2 ? 1 : 2;
        for (int32_t token = 0; token < a->tokens; token += part) {
            const int32_t n = a->tokens - token < part ? a->tokens - token : part;
            osl_tile tile[OSL_FEW];
            for (int32_t b = 0; b < blocks; b++)
                kernels[w->format][n](a, w->data + (block + b) * bytes, token,
                                      tile[0] + b * OSL_ROW_BLOCK);
            osl_emit_avx512(w, out, block, blocks, token, n, tile, 0);
        }
    }
}

OSL_AVX512_END
#endif
