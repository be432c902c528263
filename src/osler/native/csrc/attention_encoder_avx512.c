// Attention of the encoder with AVX512_BF16; layouts in attention_encoder_bf16.h.
//
// TILES: 12 queries x 32 keys for the scores (24 sums in registers), 4 queries x up to 80
// dimensions for P V (20 sums). A head of 72 is 36 pairs of dimensions for the scores and 80 for
// P V, so that only a tenth of the second half is wasted.
#define OSL_WITH_BF16
#include "linear_avx512.h"

#ifdef OSL_X86

#include <math.h>
#include <string.h>

#include "attention_encoder_bf16.h"
#include "cpu.h"

enum { QUERIES = 12, FEW = 4, WIDE = 5 };

osl_heads osl_attention_bf16_layout(int32_t positions, int32_t head_dim, int32_t dim_unit) {
    osl_heads heads = {.positions = positions,
                       .head_dim = head_dim,
                       .keys = osl_up_to(positions, 32),
                       .dim = osl_up_to(head_dim, dim_unit),
                       .value_dim = osl_up_to(head_dim, 16)};
    heads.query_bytes = (size_t)heads.keys * (size_t)heads.dim * sizeof(osl_bf16);
    heads.key_bytes = heads.query_bytes;
    heads.value_bytes = (size_t)heads.keys * (size_t)heads.value_dim * sizeof(osl_bf16);
    size_t sums = OSL_STEPS * OSL_QUERIES * (size_t)heads.value_dim;
    heads.scratch_bytes = OSL_STEPS * sizeof(osl_running) + (OSL_SCORES + sums) * sizeof(float);
    return heads;
}

void osl_attention_bf16_pack(const osl_heads *heads, const osl_head *head, const float *q,
                             const float *k, const float *v, int64_t stride, int32_t first,
                             int32_t last) {
    int32_t head_dim = heads->head_dim, dim = heads->dim;
    float scale = 0x1.715476p0f / sqrtf((float)head_dim);
    for (int32_t p = first; p < last; p++, q += stride, k += stride, v += stride) {
        osl_bf16 *queries = (osl_bf16 *)head->queries + (size_t)p * (size_t)dim;
        osl_bf16 *keys = (osl_bf16 *)head->keys + (size_t)(p / 16) * (size_t)dim * 16 + p % 16 * 2;
        for (int32_t d = 0; d < head_dim; d += 16) {
            __mmask16 mask = (__mmask16)(head_dim - d < 16 ? (1 << (head_dim - d)) - 1 : 0xffff);
            __m512 q16 = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, q + d), _mm512_set1_ps(scale));
            __m512 k16 = _mm512_maskz_loadu_ps(mask, k + d);
            __m512 v16 = _mm512_maskz_loadu_ps(mask, v + d);
            _mm256_mask_storeu_epi16(queries + d, mask, (__m256i)_mm512_cvtneps_pbh(q16));
            uint32_t pairs[8];
            _mm256_storeu_si256((__m256i *)pairs, (__m256i)_mm512_cvtneps_pbh(k16));
            for (int32_t i = 0; i < 8 && d + 2 * i < head_dim; i++)
                memcpy(keys + (d / 2 + i) * 32, &pairs[i], sizeof pairs[i]);
            osl_bf16 single[16];
            _mm256_storeu_si256((__m256i *)single, (__m256i)_mm512_cvtneps_pbh(v16));
            osl_bf16 *values = (osl_bf16 *)osl_values_at(heads, head, d / 16, p / 2 * 2) + p % 2;
            for (int32_t i = 0; i < 16 && d + i < head_dim; i++)
                values[i * 2] = single[i];
        }
    }
}

static inline __m512bh load(const osl_bf16 *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}

static inline __m512bh broadcast(const osl_bf16 *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

// 12 queries x 32 keys; queries beyond `count` repeat the last one.
static inline void score_tile(const osl_bf16 *queries, int32_t dim, int32_t count,
                              const osl_bf16 *keys, float *scores) {
    const osl_bf16 *row[QUERIES], *other = keys + dim * 16;
    __m512 a[QUERIES], b[QUERIES];
    for (int i = 0; i < QUERIES; i++) {
        row[i] = queries + (i < count ? i : count - 1) * dim;
        a[i] = b[i] = _mm512_setzero_ps();
    }
    for (int32_t d = 0; d < dim; d += 2) {
        __m512bh low = load(keys + d * 16), high = load(other + d * 16);
#pragma GCC unroll 12
        for (int i = 0; i < QUERIES; i++) {
            __m512bh query = broadcast(row[i] + d);
            a[i] = _mm512_dpbf16_ps(a[i], low, query);
            b[i] = _mm512_dpbf16_ps(b[i], high, query);
        }
    }
    for (int i = 0; i < QUERIES; i++) {
        _mm512_storeu_ps(scores + i * OSL_SCORE_STRIDE, a[i]);
        _mm512_storeu_ps(scores + i * OSL_SCORE_STRIDE + 16, b[i]);
    }
}

static inline void score(const osl_heads *heads, const osl_head *head, int32_t q, int32_t queries,
                         int32_t k, int32_t keys, float *scores) {
    const osl_bf16 *rows = (const osl_bf16 *)head->queries + (size_t)q * (size_t)heads->dim;
    const osl_bf16 *block = (const osl_bf16 *)head->keys + (size_t)k * (size_t)heads->dim;
    for (int32_t j = 0; j < keys; j += 32)
        score_tile(rows, heads->dim, queries, block + j * heads->dim, scores + j);
}

// 4 queries x 16 `columns` dimensions of sums += P V; values of the next 16 dimensions lie `next`
// further on.
OSL_INLINE void
value_tile(const int columns, const osl_bf16 *probabilities, const osl_bf16 *values, int64_t next,
           int32_t keys, float *sums, int32_t width) {
    __m512 sum[FEW][WIDE];
    for (int i = 0; i < FEW; i++)
        for (int j = 0; j < columns; j++)
            sum[i][j] = _mm512_loadu_ps(sums + i * width + 16 * j);
    for (int32_t k = 0; k < keys; k += 2, values += 32) {
        __m512bh line[WIDE];
#pragma GCC unroll 5
        for (int j = 0; j < columns; j++)
            line[j] = load(values + j * next);
#pragma GCC unroll 4
        for (int i = 0; i < FEW; i++) {
            __m512bh pair = broadcast(probabilities + i * OSL_SCORE_STRIDE * 2 + k);
#pragma GCC unroll 5
            for (int j = 0; j < columns; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], line[j], pair);
        }
    }
    for (int i = 0; i < FEW; i++)
        for (int j = 0; j < columns; j++)
            _mm512_storeu_ps(sums + i * width + 16 * j, sum[i][j]);
}

static inline void add(const osl_heads *heads, const osl_head *head, int32_t k, int32_t keys,
                       const float *scores, float *sums) {
    int32_t width = heads->value_dim;
    int64_t next = (int64_t)heads->keys * 16;
    for (int32_t d = 0; d < width; d += 16 * WIDE)
        for (int i = 0; i < QUERIES; i += FEW) {
            const osl_bf16 *p = (const osl_bf16 *)(scores + i * OSL_SCORE_STRIDE);
            const osl_bf16 *v = osl_values_at(heads, head, d / 16, k);
            float *s = sums + i * width + d;
            switch (width - d < 16 * WIDE ? (width - d) / 16 : WIDE) {
            case 1:
                value_tile(1, p, v, next, keys, s, width);
                break;
            case 2:
                value_tile(2, p, v, next, keys, s, width);
                break;
            case 3:
                value_tile(3, p, v, next, keys, s, width);
                break;
            case 4:
                value_tile(4, p, v, next, keys, s, width);
                break;
            default:
                value_tile(WIDE, p, v, next, keys, s, width);
            }
        }
}

static void attend(const osl_heads *heads, const osl_head *head, float *out, int64_t stride,
                   int32_t first, int32_t last, void *scratch) {
    osl_attend_bf16(heads, head, out, stride, first, last, scratch, QUERIES, score, add);
}

static osl_heads layout(int32_t positions, int32_t head_dim) {
    return osl_attention_bf16_layout(positions, head_dim, 2);
}

static const osl_attention table = {
    .name = "avx512",
    .tile = OSL_STEPS * QUERIES,
    .step = QUERIES,
    .layout = layout,
    .pack = osl_attention_bf16_pack,
    .attend = attend,
};

const osl_attention *osl_attention_avx512(void) {
    return osl_cpu_features()->avx512 ? &table : NULL;
}

OSL_AVX512_END

#else

#include "attention_encoder.h"

const osl_attention *osl_attention_avx512(void) {
    return NULL;
}
#endif
