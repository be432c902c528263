// The functions that are written once for each kind of processor, and the choice among them.
#ifndef OSL_KERNELS_H
#define OSL_KERNELS_H

#include "linear.h"

typedef void osl_fill_fn(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last);
typedef void osl_multiply_fn(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                             int32_t first, int32_t last);

typedef struct {
    const char *name; // "portable", "neon", "avx2", "avxvnni", "avx512vnni", "avx512", "amx"
    // NULL: as the portable ones do it.
    osl_fill_fn *fill;
    osl_multiply_fn *multiply[5]; // by osl_format
} osl_kernels;

// All that there are; which of them are built depends on the target.
extern const osl_kernels osl_kernels_portable, osl_kernels_neon, osl_kernels_avx2,
    osl_kernels_avxvnni, osl_kernels_avx512vnni, osl_kernels_avx512, osl_kernels_amx;

// The best that this processor can run; the environment variable OSLER_NATIVE_KERNELS names
// another one (for tests), and a name that cannot be had means the portable one. Chosen once.
const osl_kernels *osl_kernels_chosen(void);

// The name of the table chosen.
OSL_API const char *osl_kernels_name(void);

// One of the tables by name, or NULL where this processor or this build has it not.
OSL_API const osl_kernels *osl_kernels_named(const char *name);

// What the x86 tables need, apart from a compiler that knows the instructions:
//   avx2        AVX2, FMA, F16C
//   avxvnni     that and AVX-VNNI
//   avx512vnni  AVX-512 F, BW, VL, DQ, VNNI
//   avx512      that and AVX512_BF16
//   amx         that and AMX-TILE, AMX-INT8, AMX-BF16, with the system's permission
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define OSL_X86 1
#endif

#endif
