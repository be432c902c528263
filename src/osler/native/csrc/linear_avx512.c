// AVX-512: activations in, products out, and the tables of kernels.
#include "linear_avx512.h"

#include <math.h>

#ifdef OSL_X86

enum { AHEAD_TOKENS = 12 }; // whose lines are fetched before they are written

static __mmask16 first_lanes(int32_t n) {
    return n >= 16 ? 0xffff : (__mmask16)((1u << (n > 0 ? n : 0)) - 1);
}

static void fill_bf16(osl_acts *a, const float *x, int64_t ldx, int32_t token) {
    osl_bf16 *to = (osl_bf16 *)a->values + token * a->stride;
    const float *from = x + token * ldx;
    for (int32_t c = 0; c < a->stride; c += 16) {
        __m512i v =
            _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(a->cols - c), from + c));
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
        __m512i round = _mm512_add_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(0x7fff)), odd);
        // Rounding must not carry a NaN into infinity or the sign.
        __mmask16 nan = _mm512_fpclass_ps_mask(_mm512_castsi512_ps(v), 0x81);
        round = _mm512_mask_or_epi32(round, nan, v, _mm512_set1_epi32(0x400000));
        _mm256_storeu_si256((__m256i *)(to + c),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(round, 16)));
    }
}

static void fill_int8(osl_acts *a, const float *x, int64_t ldx, int32_t token) {
    const int32_t groups = osl_groups(a), group = a->group;
    const int32_t span = a->format == OSL_INT4 ? 32 : group; // columns of one sum
    const int32_t sums = group / span;
    int8_t *q = (int8_t *)a->values + token * a->stride;
    const float *from = x + token * ldx;
    memset(q + a->cols, 0, (size_t)(a->stride - a->cols));
    for (int32_t g = 0; g < groups; g++) {
        const int32_t start = g * group;
        const int32_t n = a->cols - start < group ? a->cols - start : group;
        // The bits of floats order as their magnitudes do, with infinity and then NaN on top.
        __m512i most = _mm512_setzero_si512();
        for (int32_t c = 0; c < n; c += 16) {
            __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - c), from + start + c);
            most = _mm512_max_epu32(most, _mm512_castps_si512(_mm512_abs_ps(v)));
        }
        const float max = osl_float(_mm512_reduce_max_epu32(most));
        const float scale = max < 0x1p-100f ? 0 : max / 127.f;
        const int none = !(scale > 0 && isfinite(scale));
        const __mmask16 some = none ? 0 : 0xffff;
        const __m512 inverse = _mm512_set1_ps(none ? 0 : 1.f / scale);
        a->scale[(int64_t)token * groups + g] = isfinite(scale) ? scale : NAN;
        int32_t *sum = a->sum + ((int64_t)token * groups + g) * sums;
        for (int32_t s = 0; s < sums; s++) {
            __m512i total = _mm512_setzero_si512();
            const int32_t end = (s + 1) * span < n ? (s + 1) * span : n;
            for (int32_t c = s * span; c < end; c += 16) {
                const __mmask16 lanes = first_lanes(end - c);
                __m512 v = _mm512_maskz_loadu_ps(lanes, from + start + c);
                __m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
                i = _mm512_maskz_mov_epi32(some, i);
                _mm_mask_storeu_epi8(q + start + c, lanes, _mm512_cvtsepi32_epi8(i));
                total = _mm512_add_epi32(total, i);
            }
            sum[s] = _mm512_reduce_add_epi32(total);
        }
    }
}

void osl_fill_avx512(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last) {
    for (int32_t t = first; t < last; t++)
        if (acts->format == OSL_BF16)
            fill_bf16(acts, x, ldx, t);
        else
            fill_int8(acts, x, ldx, t);
}

// 2^x by a polynomial on [-0.5, 0.5]; relative error below 2e-7. Beyond 100 it stays what it is there:
// enough for gelu16(), and no denormals, which are slow.
static inline __m512 exp2_16(__m512 x) {
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-100)), _mm512_set1_ps(100));
    __m512 n = _mm512_roundscale_ps(x, 8), f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.535336188e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.339887440e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.618437357e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550332471e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402264791e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931472028e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
    return _mm512_scalef_ps(p, n);
}

// x/2 (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2/pi) (x + 0.044715 x^3).
static inline __m512 gelu16(__m512 x) {
    const float k = -2.f * 0.7978845608f * 1.4426950409f;
    __m512 cubic = _mm512_mul_ps(x, _mm512_set1_ps(k * 0.044715f));
    __m512 u = _mm512_mul_ps(x, _mm512_fmadd_ps(cubic, x, _mm512_set1_ps(k)));
    // Below -32 it is as good as 0, and must be: exp2_16() stops growing. A NaN stays one.
    x = _mm512_max_ps(_mm512_set1_ps(-32), x);
    return _mm512_div_ps(x, _mm512_add_ps(exp2_16(u), _mm512_set1_ps(1.f)));
}

typedef struct {
    __m512 scale, bias;
} row_block;

// Products of one token with one row block, scaled.
static inline __m512 finished(const float *tile, const row_block *b) {
    return _mm512_fmadd_ps(_mm512_loadu_ps(tile), b->scale, b->bias);
}

void osl_emit_avx512(const osl_matrix *w, const osl_out *out, int32_t block, int32_t blocks,
                     int32_t token, int32_t n, osl_tile *tile, int64_t next) {
    const int scaled = w->format == OSL_INT8 || w->format == OSL_INT4;
    const int paired = out->kind == OSL_GEGLU;
    const int32_t row = block * OSL_ROW_BLOCK, column = paired ? row / 2 : row;
    const int32_t columns = (paired ? w->rows / 2 : w->rows) - column;
    const int32_t lines = paired ? blocks / 2 : blocks;
    row_block of[OSL_GROUP];
    for (int32_t b = 0; b < blocks; b++) {
        const int32_t r = row + b * OSL_ROW_BLOCK;
        of[b].scale = scaled ? _mm512_loadu_ps(w->row_scale + r) : _mm512_set1_ps(1.f);
        of[b].bias = out->bias ? _mm512_maskz_loadu_ps(first_lanes(w->rows - r), out->bias + r)
                               : _mm512_setzero_ps();
    }
    for (int32_t t = 0; t < n; t++) {
        float *y = out->y + (token + t) * out->ldy + column;
        for (int32_t i = 0; i < lines; i++) {
            float *to = y + i * OSL_ROW_BLOCK;
            // Tokens are far apart, and the processor does not see the next one coming.
            _mm_prefetch((const char *)(to + AHEAD_TOKENS * out->ldy), _MM_HINT_T0);
            const __mmask16 lanes = first_lanes(columns - i * OSL_ROW_BLOCK);
            if (paired) {
                const float *from = tile[i * next + t];
                __m512 gate = finished(from, &of[2 * i]);
                __m512 up = finished(from + OSL_ROW_BLOCK, &of[2 * i + 1]);
                _mm512_mask_storeu_ps(to, lanes, _mm512_mul_ps(gelu16(gate), up));
                continue;
            }
            __m512 v = finished(tile[i / 2 * next + t] + i % 2 * OSL_ROW_BLOCK, &of[i]);
            if (out->kind == OSL_ADD)
                v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(lanes, to));
            else if (out->kind == OSL_GELU)
                v = gelu16(v);
            _mm512_mask_storeu_ps(to, lanes, v);
        }
    }
}

const osl_kernels osl_kernels_avx512vnni = {
    "avx512vnni",
    osl_fill_avx512,
    {[OSL_BF16] = osl_bf16_avx512,
     [OSL_INT8] = osl_int8_avx512,
     [OSL_INT4] = osl_int4_avx512,
     [OSL_Q8_0] = osl_few_avx512,
     [OSL_Q4_0] = osl_few_avx512},
};

const osl_kernels osl_kernels_avx512 = {
    "avx512",
    osl_fill_avx512,
    {[OSL_BF16] = osl_bf16_avx512bf16,
     [OSL_INT8] = osl_int8_avx512,
     [OSL_INT4] = osl_int4_avx512,
     [OSL_Q8_0] = osl_few_avx512,
     [OSL_Q4_0] = osl_few_avx512},
};

OSL_AVX512_END
#endif
