#define _GNU_SOURCE
#include "cpu.h"

#include <pthread.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static osl_cpu features;

#if defined(__x86_64__)

// The register states that the system saves: without that, their instructions trap.
static uint64_t saved_states(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

// Tile registers are large, so that Linux hands them out only to who asks.
static bool tiles_permitted(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

static bool has(uint32_t word, uint32_t bits) {
    return (word & bits) == bits;
}

static void ask(void) {
    enum { YMM = 0x6, ZMM = 0xe6, TILES = 0x60000 };
    // Compilers have different names for these.
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit_OSXSAVE))
        return;
    uint64_t saved = saved_states();
    if (!has(c, bit_AVX | bit_FMA | bit_F16C) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        return;
    features.avx2 = has(b7, bit_AVX2) && (saved & YMM) == YMM;
    if (a >= 1)
        __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    features.avx_vnni = features.avx2 && has(a71, bit_AVXVNNI);
    features.avx512_vnni = features.avx2 && (saved & ZMM) == ZMM &&
                           has(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ) &&
                           has(c7, bit_AVX512VNNI);
    features.avx512 = features.avx512_vnni && has(a71, bit_AVX512BF16);
    features.amx = features.avx512 && (saved & TILES) == TILES &&
                   has(d7, AMX_TILE | AMX_INT8 | AMX_BF16) && tiles_permitted();
}

#elif defined(__aarch64__)

static void ask(void) {
    enum { ASIMDDP = 1 << 20, I8MM = 1 << 13, BF16 = 1 << 14 }; // linux: asm/hwcap.h
    unsigned long more = getauxval(AT_HWCAP2);
    features.neon_dot = getauxval(AT_HWCAP) & ASIMDDP;
    features.neon_mm = features.neon_dot && (more & I8MM) && (more & BF16);
}

#else

static void ask(void) {
}

#endif

const osl_cpu *osl_cpu_features(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask);
    return &features;
}

int osl_cpu_known(void) {
    const osl_cpu *cpu = osl_cpu_features();
    return cpu->avx2 || cpu->neon_dot;
}
