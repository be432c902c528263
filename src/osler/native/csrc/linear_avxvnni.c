// Products with AVX-VNNI, which processors without AVX-512 may have.
#define OSL_WITH_VNNI
#include "linear_avx2.h"

#ifdef OSL_X86

OSL_INLINE __m256i unsigned_start(int32_t start) {
    return _mm256_set1_epi32(start);
}

OSL_INLINE __m256i unsigned_dot(__m256i sum, __m256i w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}

OSL_INLINE __m256i unsigned_sum(__m256i sum) {
    return sum;
}

// A sum of 32 columns fits in 16 bits: its lower half times the multiplier, whose upper half is 0.
OSL_INLINE __m256i unsigned_factor(__m256i m) {
    return m;
}

OSL_INLINE __m256i unsigned_times(__m256i sum, __m256i factor) {
    return _mm256_madd_epi16(sum, factor);
}

// Weights become unsigned by adding 128, and the activations' sum makes up for it.
typedef __m256i signed_line;

OSL_INLINE __m256i signed_start(int32_t sum) {
    return _mm256_set1_epi32(-128 * sum);
}

OSL_INLINE signed_line signed_weights(__m256i w) {
    return _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
}

OSL_INLINE __m256i signed_dot(__m256i sum, signed_line w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}

#include "linear_avx2_products.h"

const osl_kernels osl_kernels_avxvnni = {
    "avxvnni",
    osl_fill_avx2,
    {[OSL_BF16] = osl_bf16_avx2,
     [OSL_INT8] = multiply_int8,
     [OSL_INT4] = multiply_int4,
     [OSL_Q8_0] = multiply_q8_0,
     [OSL_Q4_0] = multiply_q4_0},
};

OSL_AVX2_END
#endif
