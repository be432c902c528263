// What this processor can do, as far as the kernels care.
#ifndef OSL_CPU_H
#define OSL_CPU_H

#include <stdbool.h>

#include "common.h"

typedef struct {
    bool avx2;        // with FMA and F16C
    bool avx_vnni;    // with AVX2
    bool avx512_vnni; // and F, BW, VL, DQ; with AVX2
    bool avx512;      // that and BF16
    bool amx;         // that and tiles of int8 and bf16, which the system permits
    bool neon_dot;    // ARM's dot product; all 64-bit ones have NEON itself
    bool neon_mm;     // that and ARM's int8 and bf16 matrix products
} osl_cpu;

// Asked once.
const osl_cpu *osl_cpu_features(void);

// Whether there are instructions here that some kernels are written for.
OSL_API int osl_cpu_known(void);

#endif
