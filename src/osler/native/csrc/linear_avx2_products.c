// Products with AVX2.
#include "linear_avx2.h"

#ifdef OSL_X86

// 32 columns of nibbles times int8 fit in 16-bit sums: 2 columns of 4 each, in both halves of a
// word. The start goes to the lower half, which then lies within 8 * 127 * 32.
OSL_INLINE __m256i unsigned_start(int32_t start) {
    return _mm256_set1_epi32(start & 0xffff);
}

OSL_INLINE __m256i unsigned_dot(__m256i sum, __m256i w, __m256i x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
}

OSL_INLINE __m256i unsigned_sum(__m256i sum) {
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

OSL_INLINE __m256i unsigned_factor(__m256i m) {
    return _mm256_or_si256(m, _mm256_slli_epi32(m, 16));
}

OSL_INLINE __m256i unsigned_times(__m256i sum, __m256i factor) {
    return _mm256_madd_epi16(sum, factor);
}

// |w| is unsigned, and x takes w's sign: 2 * 128 * 127 still fits in 16 bits.
typedef struct {
    __m256i magnitude, sign;
} signed_line;

OSL_INLINE __m256i signed_start(int32_t sum) {
    (void)sum;
    return _mm256_setzero_si256();
}

OSL_INLINE signed_line signed_weights(__m256i w) {
    return (signed_line){_mm256_abs_epi8(w), w};
}

OSL_INLINE __m256i signed_dot(__m256i sum, signed_line w, __m256i x) {
    __m256i two = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.sign));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
}

#include "linear_avx2_products.h"

// ------------------------------------------------------------------ bf16, as float32

OSL_INLINE void bf16(const osl_acts *a, const uint8_t *p, int32_t token, osl_tile *tile,
                     const int n) {
    const int32_t cols = (a->cols + 31) / 32 * 32;
    const osl_bf16 *x = (const osl_bf16 *)a->values + token * a->stride;
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    totals f;
    clear(f, n);
    for (int32_t c = 0; c < cols; c += 2, p += 64) {
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        __m256i v0 = load32(p), v1 = load32(p + 32);
        __m256 even0 = _mm256_castsi256_ps(_mm256_slli_epi32(v0, 16));
        __m256 even1 = _mm256_castsi256_ps(_mm256_slli_epi32(v1, 16));
        __m256 odd0 = _mm256_castsi256_ps(_mm256_and_si256(v0, upper));
        __m256 odd1 = _mm256_castsi256_ps(_mm256_and_si256(v1, upper));
#pragma GCC unroll 4
        for (int t = 0; t < n; t++) {
            __m256i both = broadcast4((const int8_t *)(x + t * a->stride + c));
            __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
            f[t][0] = _mm256_fmadd_ps(even0, even, f[t][0]);
            f[t][1] = _mm256_fmadd_ps(even1, even, f[t][1]);
            f[t][0] = _mm256_fmadd_ps(odd0, odd, f[t][0]);
            f[t][1] = _mm256_fmadd_ps(odd1, odd, f[t][1]);
        }
    }
    keep(f, tile, n);
}

PRODUCT(bf16)

void osl_bf16_avx2(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                   int32_t last) {
    (a->tokens < OSL_AVX2_MANY ? multiply_bf16 : osl_bf16_avx2_many)(w, a, out, first, last);
}

static void any_int8(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    (a->tokens < OSL_AVX2_MANY ? multiply_int8 : osl_int8_avx2_many)(w, a, out, first, last);
}

static void any_int4(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    (a->tokens < OSL_AVX2_MANY ? multiply_int4 : osl_int4_avx2_many)(w, a, out, first, last);
}

const osl_kernels osl_kernels_avx2 = {
    "avx2",
    osl_fill_avx2,
    {[OSL_BF16] = osl_bf16_avx2,
     [OSL_INT8] = any_int8,
     [OSL_INT4] = any_int4,
     [OSL_Q8_0] = multiply_q8_0,
     [OSL_Q4_0] = multiply_q4_0},
};

OSL_AVX2_END
#endif
