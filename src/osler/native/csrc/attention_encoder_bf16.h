// What the two bf16 ways to compute the encoder's attention share: layouts, packing, softmax. To be
// included after linear_avx512.h.
//
// LAYOUTS, all bf16. Instructions multiply PAIRS of values and add both products to one float32.
//   Q  [keys][dim], rows of a head one after the other
//   K  [blocks of 16 keys][dim / 2][16 keys][2]: 64 bytes hold a pair of dimensions of 16 keys.
//   V  [value_dim / 16][keys / 2][16][2]: 64 bytes hold a pair of keys of 16 dimensions.
#ifndef OSL_ATTENTION_ENCODER_BF16_H
#define OSL_ATTENTION_ENCODER_BF16_H

#include <immintrin.h>
#include <string.h>

#include "attention_encoder.h"
#include "common.h"

// Keys taken at a time, values from one row of scores to the next (rows begin in different sets of
// the cache), queries in a step, at most, and steps that share a block of keys.
enum {
    OSL_KEYS = 128,
    OSL_SCORE_STRIDE = OSL_KEYS + 16,
    OSL_QUERIES = 32,
    OSL_SCORES = OSL_QUERIES * OSL_SCORE_STRIDE,
    OSL_STEPS = 8
};

// What is known of each query so far. `top` is what probabilities are relative to, the same integer
// in all lanes; `sum` is the sum of the probabilities, over all lanes together.
typedef struct {
    __m512 top[OSL_QUERIES], sum[OSL_QUERIES], added[OSL_QUERIES];
} osl_running;

// dim is padded to `dim_unit`, which differs.
osl_heads osl_attention_bf16_layout(int32_t positions, int32_t head_dim, int32_t dim_unit);

void osl_attention_bf16_pack(const osl_heads *heads, const osl_head *head, const float *q,
                             const float *k, const float *v, int64_t stride, int32_t first,
                             int32_t last);

// Where the values of key `key` (even) and dimensions from 16 `block` on begin.
static inline const osl_bf16 *osl_values_at(const osl_heads *heads, const osl_head *head,
                                            int32_t block, int32_t key) {
    size_t lines = (size_t)block * (size_t)heads->keys + (size_t)key;
    return (const osl_bf16 *)head->values + lines * 16;
}

// 2^(x - top) for an integer `top`, to 1e-4: far below the rounding to bf16 that follows. Scores
// far above or below give infinity or 0.
static inline __m512 osl_exp2_above(__m512 x, __m512 top) {
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF); // x - floor(x)
    __m512 p = _mm512_set1_ps(0x1.3f96a4p-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.cefc4ep-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.64444ap-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.fff632p-1f));
    return _mm512_scalef_ps(p, _mm512_sub_ps(x, top)); // takes the floor of its second argument
}

// Turns scores of `queries` rows into bf16 probabilities, which take their place, and sets `added`.
// `keys` is a multiple of 32. Returns the rows, as bits, in which something became so large that
// `top` has to be raised.
static inline uint32_t osl_soften(float *scores, int32_t queries, int32_t keys,
                                  osl_running *running) {
    uint32_t large = 0;
    for (int32_t i = 0; i < queries; i++) {
        float *row = scores + i * OSL_SCORE_STRIDE;
        __m512 top = running->top[i], even = _mm512_setzero_ps(), odd = even;
        for (int32_t j = 0; j < keys; j += 32) {
            __m512 a = osl_exp2_above(_mm512_loadu_ps(row + j), top);
            __m512 b = osl_exp2_above(_mm512_loadu_ps(row + j + 16), top);
            even = _mm512_add_ps(even, a);
            odd = _mm512_add_ps(odd, b);
            _mm512_storeu_si512((osl_bf16 *)row + j, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
        even = _mm512_add_ps(even, odd);
        running->added[i] = even;
        __mmask16 above = _mm512_cmp_ps_mask(even, _mm512_set1_ps(0x1p64f), _CMP_NLT_UQ);
        large |= (uint32_t)(above != 0) << i;
    }
    return large;
}

// Raises `top` of some rows to the next integer above their scores, and scales what they have
// summed.
static inline void osl_raise(const float *scores, uint32_t rows, int32_t keys, osl_running *running,
                             float *sums, int32_t width) {
    for (; rows; rows &= rows - 1) {
        int i = __builtin_ctz(rows);
        const float *row = scores + i * OSL_SCORE_STRIDE;
        __m512 max = running->top[i];
        for (int32_t j = 0; j < keys; j += 16)
            max = _mm512_max_ps(max, _mm512_loadu_ps(row + j));
        __m512 top = _mm512_set1_ps(__builtin_ceilf(_mm512_reduce_max_ps(max)));
        __m512 scale = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_sub_ps(running->top[i], top));
        running->top[i] = top;
        running->sum[i] = _mm512_mul_ps(running->sum[i], scale);
        for (int32_t d = 0; d < width; d += 16) {
            __m512 sum = _mm512_loadu_ps(sums + i * width + d);
            _mm512_storeu_ps(sums + i * width + d, _mm512_mul_ps(sum, scale));
        }
    }
}

// Before the first keys; `sums` is [OSL_QUERIES][width].
static inline void osl_begin(osl_running *running, float *sums, int32_t width) {
    for (int i = 0; i < OSL_QUERIES; i++) {
        running->top[i] = _mm512_set1_ps(-0x1p29f);
        running->sum[i] = _mm512_setzero_ps();
    }
    memset(sums, 0, OSL_QUERIES * (size_t)width * sizeof(float));
}

// Makes keys that are only padding count nothing.
static inline void osl_hide_padding(float *scores, int32_t queries, int32_t used, int32_t keys) {
    for (int32_t j = used; j < keys; j++)
        for (int32_t i = 0; i < queries; i++)
            scores[i * OSL_SCORE_STRIDE + j] = -0x1p30f;
}

// The end: `queries` rows of `out` from the sums.
static inline void osl_divide(const osl_running *running, const float *sums, int32_t width,
                              int32_t queries, int32_t head_dim, float *out, int64_t stride) {
    for (int32_t i = 0; i < queries; i++) {
        __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(running->sum[i]));
        for (int32_t d = 0; d < head_dim; d += 16) {
            __mmask16 mask = (__mmask16)(head_dim - d < 16 ? (1 << (head_dim - d)) - 1 : 0xffff);
            __m512 sum = _mm512_loadu_ps(sums + i * width + d);
            _mm512_mask_storeu_ps(out + i * stride + d, mask, _mm512_mul_ps(sum, share));
        }
    }
}

// Scores of `queries` rows from `q` with `keys` keys from `k`, before the softmax; beyond `queries`
// whatever is convenient, up to the step.
typedef void osl_score_fn(const osl_heads *heads, const osl_head *head, int32_t q, int32_t queries,
                          int32_t k, int32_t keys, float *scores);

// sums += P V, over `keys` keys from `k`.
typedef void osl_add_fn(const osl_heads *heads, const osl_head *head, int32_t k, int32_t keys,
                        const float *scores, float *sums);

// One block of keys for `queries` rows from `q` on, up to a step.
//
// A query's `top` is taken from its first keys and kept: later scores may exceed it, since floats
// have room for factors of 2^64. Only beyond that the block is done again with a higher one.
OSL_INLINE void osl_attend_block(const osl_heads *heads, const osl_head *head, int32_t q,
                                 int32_t queries, int32_t k, float *scores, osl_running *running,
                                 float *sums, osl_score_fn *score, osl_add_fn *add) {
    int32_t keys = heads->keys - k < OSL_KEYS ? heads->keys - k : OSL_KEYS;
    uint32_t raise = k ? 0 : ~(uint32_t)0 >> (32 - queries);
    // Twice at most: where there is a NaN, raising does not help.
    for (int again = 0; again < 2; again++) {
        score(heads, head, q, queries, k, keys, scores);
        osl_hide_padding(scores, queries, heads->positions - k, keys);
        osl_raise(scores, raise, keys, running, sums, heads->value_dim);
        raise = osl_soften(scores, queries, keys, running);
        if (!raise)
            break;
    }
    for (int32_t i = 0; i < queries; i++)
        running->sum[i] = _mm512_add_ps(running->sum[i], running->added[i]);
    add(heads, head, k, keys, scores, sums);
}

// Attends queries [first, last), `step` at a time. Several steps share what was loaded of a block
// of keys and values, or a long sequence's would come from beyond the second-level cache each time.
OSL_INLINE void osl_attend_bf16(const osl_heads *heads, const osl_head *head, float *out,
                                int64_t stride, int32_t first, int32_t last, void *scratch,
                                int32_t step, osl_score_fn *score, osl_add_fn *add) {
    const int32_t width = heads->value_dim;
    osl_running *running = scratch;
    float *scores = (float *)(running + OSL_STEPS), *sums = scores + OSL_SCORES;
    for (int32_t q = first; q < last; q += OSL_STEPS * step) {
        int32_t end = last - q < OSL_STEPS * step ? last : q + OSL_STEPS * step;
        int32_t steps = (end - q + step - 1) / step;
        for (int32_t i = 0; i < steps; i++)
            osl_begin(&running[i], sums + i * OSL_QUERIES * width, width);
        for (int32_t k = 0; k < heads->keys; k += OSL_KEYS)
            for (int32_t i = 0; i < steps; i++) {
                int32_t from = q + i * step, queries = end - from < step ? end - from : step;
                osl_attend_block(heads, head, from, queries, k, scores, &running[i],
                                 sums + i * OSL_QUERIES * width, score, add);
            }
        for (int32_t i = 0; i < steps; i++) {
            int32_t from = q + i * step, queries = end - from < step ? end - from : step;
            osl_divide(&running[i], sums + i * OSL_QUERIES * width, width, queries,
                       heads->head_dim, out + from * stride, stride);
        }
    }
}

#endif
