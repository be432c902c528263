// bf16 for processors that have AVX-512 but not AVX512_BF16: as two float32 products.
#include "linear_avx512.h"

#ifdef OSL_X86

typedef struct {
    __m512 even, odd;
} pairs;

OSL_INLINE pairs apart(__m512i v) {
    pairs both = {_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
                  _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)))};
    return both;
}

OSL_INLINE pairs load_pairs(const osl_bf16 *p) {
    return apart(_mm512_loadu_si512(p));
}

OSL_INLINE pairs broadcast_pairs(const osl_bf16 *p) {
    return apart(osl_broadcast4(p));
}

OSL_INLINE __m512 dot(__m512 sum, pairs w, pairs x) {
    return _mm512_fmadd_ps(w.odd, x.odd, _mm512_fmadd_ps(w.even, x.even, sum));
}

#define OSL_MULTIPLY_BF16 osl_bf16_avx512
#include "linear_avx512_bf16.h"

OSL_AVX512_END
#endif
