// The products of int8 activations with the int8 and int4 formats, for AVX2 and for AVX-VNNI.
// Before it come, each for 8 rows of 4 columns:
//   unsigned_start(s)            sums that begin with s, of unsigned weights
//   unsigned_dot(sum, w, x)      and their next term
//   unsigned_sum(sum)            the same as int32 [8 rows]
//   unsigned_factor(m)           multipliers, int32 [8 rows], for
//   unsigned_times(sum, factor)  the sums of 32 columns times the multipliers, as int32 [8 rows]
//   signed_start(s)              sums of signed weights, where s is the activations' sum
//   signed_weights(w)            something to multiply with
//   signed_dot(sum, w, x)        and the next term
// It defines multiply_int8, multiply_int4, multiply_q8_0 and multiply_q4_0 for a table.

enum { AHEAD = 4096 };

OSL_INLINE __m256i broadcast4(const int8_t *p) {
    int32_t word;
    memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}

OSL_INLINE __m256i load32(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

OSL_INLINE __m256i low_nibbles(__m256i v) {
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

OSL_INLINE __m256i high_nibbles(__m256i v) {
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

typedef __m256i sums[OSL_AVX2_TOKENS][2]; // halves of a row block
typedef __m256 totals[OSL_AVX2_TOKENS][2];

OSL_INLINE void clear(totals f, const int n) {
    for (int t = 0; t < n; t++)
        f[t][0] = f[t][1] = _mm256_setzero_ps();
}

OSL_INLINE void keep(totals f, osl_tile *tile, const int n) {
    for (int t = 0; t < n; t++) {
        _mm256_storeu_ps(tile[t], f[t][0]);
        _mm256_storeu_ps(tile[t] + 8, f[t][1]);
    }
}

// 32 columns of nibbles; sum points at the first token's sum of these columns.
OSL_INLINE void nibbles(const uint8_t *p, const int8_t *x, int64_t stride, const int32_t *sum,
                        int32_t sums_each, sums i, const int n) {
    for (int t = 0; t < n; t++)
        i[t][0] = i[t][1] = unsigned_start(-8 * sum[t * sums_each]);
#pragma GCC unroll 4
    for (int l = 0; l < 4; l++) {
        _mm_prefetch((const char *)p + 64 * l + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i v = load32(p + 64 * l + 32 * h);
            __m256i low = low_nibbles(v), high = high_nibbles(v);
#pragma GCC unroll 4
            for (int t = 0; t < n; t++) {
                const int8_t *at = x + t * stride + 8 * l;
                i[t][h] = unsigned_dot(i[t][h], low, broadcast4(at));
                i[t][h] = unsigned_dot(i[t][h], high, broadcast4(at + 4));
            }
        }
    }
}

// `cols` columns of int8, added to i.
OSL_INLINE void bytes(const uint8_t *p, const int8_t *x, int64_t stride, int32_t cols, sums i,
                      const int n) {
    for (int32_t c = 0; c < cols; c += 4, p += 64) {
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            signed_line w = signed_weights(load32(p + 32 * h));
#pragma GCC unroll 4
            for (int t = 0; t < n; t++)
                i[t][h] = signed_dot(i[t][h], w, broadcast4(x + t * stride + c));
        }
    }
}

OSL_INLINE void add(totals f, const sums i, const float *scale, int32_t groups, const int n) {
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2; h++)
            f[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(i[t][h]),
                                      _mm256_set1_ps(scale[t * groups]), f[t][h]);
}

OSL_INLINE void add_by_row(totals f, const sums i, const uint8_t *rows, const float *scale,
                           int32_t groups, const int n) {
    for (int h = 0; h < 2; h++) {
        __m256 d = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(rows + 16 * h)));
        for (int t = 0; t < n; t++) {
            __m256 s = _mm256_mul_ps(d, _mm256_set1_ps(scale[t * groups]));
            f[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(i[t][h]), s, f[t][h]);
        }
    }
}

OSL_INLINE void int4(const osl_acts *a, const uint8_t *p, int32_t token, osl_tile *tile,
                     const int n) {
    const int32_t chunks = (a->cols + 255) / 256;
    const int8_t *x = (const int8_t *)a->values + token * a->stride;
    const float *scale = a->scale + (int64_t)token * chunks;
    const int32_t *sum = a->sum + (int64_t)token * chunks * 8;
    const __m256i one = _mm256_set1_epi32(1);
    totals f;
    clear(f, n);
    for (int32_t c = 0; c < chunks; c++, p += 2112) {
        _mm_prefetch((const char *)p + 2048 + AHEAD, _MM_HINT_T0);
        sums whole;
        for (int t = 0; t < n; t++)
            whole[t][0] = whole[t][1] = _mm256_setzero_si256();
        for (int g = 0; g < 8; g++) {
            sums i;
            nibbles(p + 256 * g, x + 256 * c + 32 * g, a->stride, sum + 8 * c + g, 8 * chunks, i,
                    n);
            __m256i m = _mm256_cvtepu8_epi32(
                _mm_loadl_epi64((const __m128i *)(p + 2048 + 8 * g)));
            __m256i m0 = _mm256_add_epi32(_mm256_and_si256(m, _mm256_set1_epi32(15)), one);
            __m256i m1 = _mm256_add_epi32(_mm256_srli_epi32(m, 4), one);
            m0 = unsigned_factor(m0);
            m1 = unsigned_factor(m1);
            for (int t = 0; t < n; t++) {
                whole[t][0] = _mm256_add_epi32(whole[t][0], unsigned_times(i[t][0], m0));
                whole[t][1] = _mm256_add_epi32(whole[t][1], unsigned_times(i[t][1], m1));
            }
        }
        add(f, whole, scale + c, chunks, n);
    }
    keep(f, tile, n);
}

OSL_INLINE void int8(const osl_acts *a, const uint8_t *p, int32_t token, osl_tile *tile,
                     const int n) {
    const int32_t groups = (a->cols + a->group - 1) / a->group, cols = (a->cols + 63) / 64 * 64;
    const int8_t *x = (const int8_t *)a->values + token * a->stride;
    totals f;
    clear(f, n);
    for (int32_t g = 0; g < groups; g++) {
        const int32_t c = g * a->group, end = g + 1 < groups ? c + a->group : cols;
        const int64_t at = (int64_t)token * groups + g;
        sums i;
        for (int t = 0; t < n; t++)
            i[t][0] = i[t][1] = signed_start(a->sum[at + t * groups]);
        bytes(p + 16 * (int64_t)c, x + c, a->stride, end - c, i, n);
        add(f, i, a->scale + at, groups, n);
    }
    keep(f, tile, n);
}

OSL_INLINE void q8_0(const osl_acts *a, const uint8_t *p, int32_t token, osl_tile *tile,
                     const int n) {
    const int32_t groups = (a->cols + 31) / 32;
    const int8_t *x = (const int8_t *)a->values + token * a->stride;
    totals f;
    clear(f, n);
    for (int32_t g = 0; g < groups; g++, p += 544) {
        const int64_t at = (int64_t)token * groups + g;
        sums i;
        for (int t = 0; t < n; t++)
            i[t][0] = i[t][1] = signed_start(a->sum[at + t * groups]);
        bytes(p, x + 32 * g, a->stride, 32, i, n);
        add_by_row(f, i, p + 512, a->scale + at, groups, n);
    }
    keep(f, tile, n);
}

OSL_INLINE void q4_0(const osl_acts *a, const uint8_t *p, int32_t token, osl_tile *tile,
                     const int n) {
    const int32_t groups = (a->cols + 31) / 32;
    const int8_t *x = (const int8_t *)a->values + token * a->stride;
    totals f;
    clear(f, n);
    for (int32_t g = 0; g < groups; g++, p += 288) {
        const int64_t at = (int64_t)token * groups + g;
        sums i;
        nibbles(p, x + 32 * g, a->stride, a->sum + at, groups, i, n);
        for (int t = 0; t < n; t++)
            for (int h = 0; h < 2; h++)
                i[t][h] = unsigned_sum(i[t][h]);
        add_by_row(f, i, p + 256, a->scale + at, groups, n);
    }
    keep(f, tile, n);
}

// A copy for each number of tokens, and osl_multiply.
#define PRODUCT(format)                                                                            \
    static void format##_tokens(const osl_acts *a, const uint8_t *p, int32_t token, int32_t n,     \
                                osl_tile *tile) {                                                  \
        switch (n) {                                                                               \
        case 1:                                                                                    \
            format(a, p, token, tile, 1);                                                          \
            break;                                                                                 \
        case 2:                                                                                    \
            format(a, p, token, tile, 2);                                                          \
            break;                                                                                 \
        case 3:                                                                                    \
            format(a, p, token, tile, 3);                                                          \
            break;                                                                                 \
        default:                                                                                   \
            format(a, p, token, tile, 4);                                                          \
        }                                                                                          \
    }                                                                                              \
    static void multiply_##format(const osl_matrix *w, const osl_acts *a, const osl_out *out,      \
                                  int32_t first, int32_t last) {                                   \
        osl_multiply_avx2(format##_tokens, w, a, out, first, last);                                \
    }
PRODUCT(int8)
PRODUCT(int4)
PRODUCT(q8_0)
PRODUCT(q4_0)
