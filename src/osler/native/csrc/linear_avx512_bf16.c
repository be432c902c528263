// bf16 with AVX512_BF16.
#define OSL_WITH_BF16
#include "linear_avx512.h"

#ifdef OSL_X86

typedef __m512bh pairs;

OSL_INLINE pairs load_pairs(const osl_bf16 *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}

OSL_INLINE pairs broadcast_pairs(const osl_bf16 *p) {
    return (__m512bh)osl_broadcast4(p);
}

OSL_INLINE __m512 dot(__m512 sum, pairs w, pairs x) {
    return _mm512_dpbf16_ps(sum, w, x);
}

#define OSL_MULTIPLY_BF16 osl_bf16_avx512bf16
#include "linear_avx512_bf16.h"

OSL_AVX512_END
#endif
