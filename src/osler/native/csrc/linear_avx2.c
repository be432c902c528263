// AVX2: activations in, products out.
#include "linear_avx2.h"

#ifdef OSL_X86

#include <math.h>

// ------------------------------------------------------------------ activations

static void fill_bf16(osl_acts *a, const float *x, int32_t token) {
    osl_bf16 *to = (osl_bf16 *)a->values + token * a->stride;
    for (int32_t c = 0; c < a->cols; c++)
        to[c] = osl_bf16_from_float(x[c]);
    memset(to + a->cols, 0, (size_t)(a->stride - a->cols) * sizeof *to);
}

// The bits of floats order as their magnitudes do, with infinity and then NaN on top.
static float largest(const float *x, int32_t n) {
    uint32_t most = 0;
    for (int32_t c = 0; c < n; c++) {
        uint32_t bits = osl_bits(x[c]) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return osl_float(most);
}

// Values of n columns; returns their sum. Whole 8s are rounded together.
static int32_t round_all(const float *x, int32_t n, float inverse, int8_t *q) {
    const __m256 by = _mm256_set1_ps(inverse);
    // The lower byte of each word to the lower half.
    const __m256i bytes = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                           -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                           -1, -1);
    __m256i sums = _mm256_setzero_si256();
    int32_t c = 0, sum = 0, part[8];
    for (; c + 8 <= n; c += 8) {
        __m256i i = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + c), by));
        sums = _mm256_add_epi32(sums, i);
        i = _mm256_shuffle_epi8(i, bytes);
        __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
        _mm_storel_epi64((__m128i *)(q + c), both);
    }
    _mm256_storeu_si256((__m256i *)part, sums);
    for (int k = 0; k < 8; k++)
        sum += part[k];
    for (; c < n; c++) {
        int32_t i = _mm_cvtss_si32(_mm_set_ss(x[c] * inverse));
        q[c] = (int8_t)i;
        sum += i;
    }
    return sum;
}

static void fill_int8(osl_acts *a, const float *x, int32_t token) {
    const int32_t groups = (a->cols + a->group - 1) / a->group;
    const int32_t span = a->format == OSL_INT4 ? 32 : a->group; // columns of one sum
    const int32_t sums = a->group / span;
    int8_t *q = (int8_t *)a->values + token * a->stride;
    memset(q + a->cols, 0, (size_t)(a->stride - a->cols));
    for (int32_t g = 0; g < groups; g++) {
        const int32_t start = g * a->group, left = a->cols - start;
        const int32_t n = left < a->group ? left : a->group;
        const float max = largest(x + start, n), scale = max < 0x1p-100f ? 0 : max / 127.f;
        const int none = !(scale > 0 && isfinite(scale));
        a->scale[(int64_t)token * groups + g] = isfinite(scale) ? scale : NAN;
        int32_t *sum = a->sum + ((int64_t)token * groups + g) * sums;
        for (int32_t s = 0; s < sums; s++) {
            const int32_t from = s * span, until = from + span < n ? from + span : n;
            const int32_t columns = until > from ? until - from : 0;
            sum[s] = 0;
            if (none)
                memset(q + start + from, 0, (size_t)columns);
            else
                sum[s] = round_all(x + start + from, columns, 1.f / scale, q + start + from);
        }
    }
}

void osl_fill_avx2(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last) {
    for (int32_t t = first; t < last; t++)
        if (acts->format == OSL_BF16)
            fill_bf16(acts, x + t * ldx, t);
        else
            fill_int8(acts, x + t * ldx, t);
}

// ------------------------------------------------------------------ products out

// 2^x by a polynomial on [-0.5, 0.5]; relative error below 2e-7.
static inline __m256 exp2_8(__m256 x) {
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-126)), _mm256_set1_ps(127));
    __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 f = _mm256_sub_ps(x, n), p = _mm256_set1_ps(1.535336188e-4f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.339887440e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.618437357e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.550332471e-2f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.402264791e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.931472028e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.f));
    __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n),
                                                          _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(exponent));
}

// x/2 (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2/pi) (x + 0.044715 x^3).
static inline __m256 gelu8(__m256 x) {
    const float k = -2.f * 0.7978845608f * 1.4426950409f;
    __m256 cubic = _mm256_mul_ps(x, _mm256_set1_ps(k * 0.044715f));
    __m256 u = _mm256_mul_ps(x, _mm256_fmadd_ps(cubic, x, _mm256_set1_ps(k)));
    return _mm256_div_ps(x, _mm256_add_ps(exp2_8(u), _mm256_set1_ps(1.f)));
}

static __m256i first_lanes(int32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Tokens [token, token + n) of rows [row, row + 8), from column `at` of the tile.
static void emit8(const osl_matrix *w, const osl_out *out, int32_t row, int32_t at, int32_t token,
                  int32_t n, const osl_tile *tile) {
    const int scaled = w->format == OSL_INT8 || w->format == OSL_INT4;
    const int paired = out->kind == OSL_GEGLU;
    // Row 32 i + r of a pair of blocks goes to column 16 i + r.
    const int32_t column = paired ? row / 32 * 16 + row % 16 : row;
    const int32_t left = (paired ? w->rows / 2 : w->rows) - column;
    const __m256i lanes = first_lanes(left);
    const __m256 one = _mm256_set1_ps(1.f);
    __m256 scale[2], bias[2];
    for (int b = 0; b <= paired; b++) {
        const int32_t r = row + b * OSL_ROW_BLOCK;
        scale[b] = scaled ? _mm256_loadu_ps(w->row_scale + r) : one;
        bias[b] = out->bias ? _mm256_maskload_ps(out->bias + r, first_lanes(w->rows - r))
                            : _mm256_setzero_ps();
    }
    for (int32_t t = 0; t < n; t++) {
        float *y = out->y + (token + t) * out->ldy + column;
        __m256 v = _mm256_fmadd_ps(_mm256_loadu_ps(tile[t] + at), scale[0], bias[0]);
        if (paired)
            v = _mm256_mul_ps(gelu8(v),
                              _mm256_fmadd_ps(_mm256_loadu_ps(tile[t] + at + OSL_ROW_BLOCK),
                                              scale[1], bias[1]));
        else if (out->kind == OSL_ADD)
            v = _mm256_add_ps(v, _mm256_maskload_ps(y, lanes));
        else if (out->kind == OSL_GELU)
            v = gelu8(v);
        if (left >= 8) // masks take many cycles on some processors
            _mm256_storeu_ps(y, v);
        else
            _mm256_maskstore_ps(y, lanes, v);
    }
}

void osl_emit_avx2(const osl_matrix *w, const osl_out *out, int32_t block, int32_t blocks,
                   int32_t token, int32_t n, const osl_tile *tile, int32_t apart) {
    for (int32_t b = 0; b < blocks; b += 2, tile += apart) {
        const int32_t rows = out->kind == OSL_GEGLU || b + 1 == blocks ? OSL_ROW_BLOCK : 2 * OSL_ROW_BLOCK;
        for (int32_t r = 0; r < rows; r += 8)
            emit8(w, out, (block + b) * OSL_ROW_BLOCK + r, r, token, n, tile);
    }
}

void osl_multiply_avx2(osl_avx2_product *product, const osl_matrix *w, const osl_acts *a,
                       const osl_out *out, int32_t first, int32_t last) {
    const size_t bytes = osl_packed_bytes(w->format, OSL_ROW_BLOCK, w->cols);
    for (int32_t block = first; block < last; block += 2) {
        const int32_t blocks = last - block < 2 ? 1 : 2;
        for (int32_t token = 0; token < a->tokens; token += OSL_AVX2_TOKENS) {
            const int32_t left = a->tokens - token;
            const int32_t n = left < OSL_AVX2_TOKENS ? left : OSL_AVX2_TOKENS;
            osl_tile tile[OSL_AVX2_TOKENS];
            for (int32_t b = 0; b < blocks; b++)
                product(a, w->data + (block + b) * bytes, token, n,
                        (osl_tile *)(tile[0] + b * OSL_ROW_BLOCK));
            osl_emit_avx2(w, out, block, blocks, token, n, tile, 0);
        }
    }
}

OSL_AVX2_END
#endif
