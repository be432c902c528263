// What the two bf16 ways to compute the encoder's attention share: layouts, packing, softmax. To be
// included under `#pragma GCC target` with at least AVX512_BF16.
//
// LAYOUTS, all bf16. Instructions multiply PAIRS of values and add both products to one float32.
//   Q  [keys][dim], rows of a head one after the other
//   K  [blocks of 16 keys][dim / 2][16 keys][2]: 64 bytes hold a pair of dimensions of 16 keys.
//   V  [keys / 2][value_dim][2]: for a pair of keys, both values of each dimension.
#ifndef OSL_ATTENTION_ENCODER_BF16_H
#define OSL_ATTENTION_ENCODER_BF16_H

#include <immintrin.h>

#include "attention_encoder.h"
#include "common.h"

// Keys taken at a time, and values from one row of scores to the next: rows of probabilities start
// in different sets of the cache.
enum { OSL_KEYS = 256, OSL_SCORE_STRIDE = OSL_KEYS + 16 };

// dim is padded to `dim_unit`, which differs.
osl_heads osl_attention_bf16_layout(int32_t positions, int32_t head_dim, int32_t dim_unit);

void osl_attention_bf16_pack(const osl_heads *heads, const osl_head *head, const float *q,
                             const float *k, const float *v, int64_t stride, int32_t first,
                             int32_t last);

// The bits of 2^(x - top), for an integer `top` and x <= top, to 1e-4: far below the rounding to
// bf16 that follows.
static inline __m512 osl_exp2_below(__m512 x, __m512 top) {
    // Adding it leaves round(x) - top in the low bits.
    __m512 round = _mm512_sub_ps(_mm512_set1_ps(0x1.8p23f), top);
    x = _mm512_max_ps(x, _mm512_sub_ps(top, _mm512_set1_ps(126.0f)));
    __m512 shifted = _mm512_add_ps(x, round);
    __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, round));
    __m512 p = _mm512_set1_ps(0x1.c3f760p-5f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.f0de1ap-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62f31ap-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.fff692p-1f));
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
}

// Turns a row of scores into bf16 probabilities, which take its place. `used` of `padded` keys are
// real; `padded` is a multiple of 32. Returns what the sums so far are to be multiplied with.
static inline float osl_soften(float *scores, int32_t used, int32_t padded, float *max,
                               float *sum) {
    for (int32_t j = used; j < padded; j++)
        scores[j] = -0x1p30f;
    __m512 m = _mm512_set1_ps(*max), n = m;
    for (int32_t j = 0; j < padded; j += 32) {
        m = _mm512_max_ps(m, _mm512_loadu_ps(scores + j));
        n = _mm512_max_ps(n, _mm512_loadu_ps(scores + j + 16));
    }
    __m128 old = _mm_set_ss(*max), new = _mm_set_ss(_mm512_reduce_max_ps(_mm512_max_ps(m, n)));
    new = _mm_ceil_ss(new, new);
    __m512 top = _mm512_broadcastss_ps(new);
    __m512 total = _mm512_setzero_ps(), other = total;
    for (int32_t j = 0; j < padded; j += 32) {
        __m512 a = osl_exp2_below(_mm512_loadu_ps(scores + j), top);
        __m512 b = osl_exp2_below(_mm512_loadu_ps(scores + j + 16), top);
        total = _mm512_add_ps(total, a);
        other = _mm512_add_ps(other, b);
        _mm512_storeu_si512((osl_bf16 *)scores + j, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
    // 2^(old - new), exact, since both are integers.
    float scale = _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(1.0f), _mm_sub_ss(old, new)));
    *max = _mm_cvtss_f32(new);
    *sum = *sum * scale + _mm512_reduce_add_ps(_mm512_add_ps(total, other));
    return scale;
}

#endif
