// What the AVX2 files share. Include it first of all, after OSL_WITH_VNNI for that too, as
// linear_avx512.h; a file ends with OSL_AVX2_END.
#ifndef OSL_LINEAR_AVX2_H
#define OSL_LINEAR_AVX2_H

#include "kernels.h"

#ifdef OSL_X86

#include <immintrin.h>

#if defined(__clang__)
#define OSL_AVX2_END _Pragma("clang attribute pop")
#if defined(OSL_WITH_VNNI)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#endif
#else
#define OSL_AVX2_END
#pragma GCC target("avx2,fma,f16c")
#if defined(OSL_WITH_VNNI)
#pragma GCC target("avxvnni")
#endif
#endif

#define OSL_INLINE static inline __attribute__((always_inline))

enum { OSL_AVX2_TOKENS = 4 }; // in one pass: 8 of the 16 registers are sums

// Products of some tokens with a pair of row blocks: [token][row].
typedef float osl_tile[2 * OSL_ROW_BLOCK];

// One row block by n tokens from `token` on: n rows of a tile, without row scale and bias.
typedef void osl_avx2_product(const osl_acts *a, const uint8_t *p, int32_t token, int32_t n,
                              osl_tile *tile);

void osl_fill_avx2(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last);

// osl_multiply with one of the products.
void osl_multiply_avx2(osl_avx2_product *product, const osl_matrix *w, const osl_acts *a,
                       const osl_out *out, int32_t first, int32_t last);

// Hands out what was multiplied of row blocks [block, block + blocks) by tokens [token, token + n):
// a tile for each token, those of the next pair of blocks `apart` further.
void osl_emit_avx2(const osl_matrix *w, const osl_out *out, int32_t block, int32_t blocks,
                   int32_t token, int32_t n, const osl_tile *tile, int32_t apart);

// osl_multiply from so many tokens on, and for any number of them with bf16.
enum { OSL_AVX2_MANY = 8 };
osl_multiply_fn osl_int4_avx2_many, osl_int8_avx2_many, osl_bf16_avx2_many, osl_bf16_avx2;

#endif
#endif
