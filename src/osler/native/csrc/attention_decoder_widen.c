// int8 to bf16 on AVX512_VBMI: both bytes of the bf16 are looked up by the int8's size.
#include "attention_decoder.h"
#include "kernels.h"

#if defined(OSL_X86)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vbmi"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vbmi")
#endif

#include <immintrin.h>

enum { SIZES = 128, STEP = 64, AHEAD = 2048 };

// The low and the high bytes of the bf16 of 0 to 127.
typedef struct {
    uint8_t low[SIZES], high[SIZES];
} table;

static table bytes_of_sizes(void) {
    table t;
    for (int i = 0; i < SIZES; i++) {
        osl_bf16 x = osl_bf16_from_float((float)i);
        t.low[i] = (uint8_t)(x & 0xff);
        t.high[i] = (uint8_t)(x >> 8);
    }
    return t;
}

void osl_widen_vbmi(const int8_t *from, osl_pair *to, int32_t pairs) {
    const table t = bytes_of_sizes();
    const __m512i low = _mm512_loadu_si512(t.low), lows = _mm512_loadu_si512(t.low + STEP);
    const __m512i high = _mm512_loadu_si512(t.high), highs = _mm512_loadu_si512(t.high + STEP);
    // Each half of a 128-bit lane becomes a lane of its own.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i sign = _mm512_set1_epi8(-128);
    for (int32_t i = 0; i < pairs; i += STEP / 2, from += STEP, to += STEP / 2) {
        _mm_prefetch((const char *)from + AHEAD, _MM_HINT_T0);
        __m512i x = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(from));
        __m512i size = _mm512_abs_epi8(x);
        __m512i first = _mm512_permutex2var_epi8(low, size, lows);
        __m512i second = _mm512_permutex2var_epi8(high, size, highs);
        second = _mm512_or_si512(second, _mm512_and_si512(x, sign));
        _mm512_storeu_si512(to, _mm512_unpacklo_epi8(first, second));
        _mm512_storeu_si512(to + STEP / 4, _mm512_unpackhi_epi8(first, second));
    }
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
