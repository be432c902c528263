// Attention of the encoder with AVX2 and FMA, for all x86 without AVX512_BF16.
#include "attention_encoder.h"
#include "kernels.h"

#ifdef OSL_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define VECTOR_BYTES 32
#define QUERIES 6
#include "attention_encoder_float.h"
#include "cpu.h"

static const osl_attention table = {
    .name = "avx2",
    .tile = TILES * QUERIES,
    .step = QUERIES,
    .layout = layout,
    .pack = pack,
    .attend = attend,
};

const osl_attention *osl_attention_avx2(void) {
    return osl_cpu_features()->avx2 ? &table : NULL;
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#else
const osl_attention *osl_attention_avx2(void) {
    return NULL;
}
#endif
