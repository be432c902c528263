// What the machine can do at most: reading memory, and multiplying in registers alone. One thread;
// bench/probe.py starts as many as it wants.
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

// Sum of all 64-bit words, so that every byte is really read; `bytes` is a multiple of 256.
__attribute__((target("avx2"))) uint64_t probe_read(const char *p, size_t bytes) {
    __m256i sum[8];
    for (int i = 0; i < 8; i++)
        sum[i] = _mm256_setzero_si256();
    for (const char *end = p + bytes; p < end; p += 256) {
        for (int i = 0; i < 4; i++) // without prefetching, one core reads less than its share
            _mm_prefetch(p + 4096 + 64 * i, _MM_HINT_T0);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            sum[i] = _mm256_add_epi64(sum[i], _mm256_loadu_si256((const __m256i *)(p + 32 * i)));
    }
    uint64_t words[4], all = 0;
    for (int i = 0; i < 8; i++) {
        _mm256_storeu_si256((__m256i *)words, sum[i]);
        all += words[0] + words[1] + words[2] + words[3];
    }
    return all;
}

// Eight independent sums, `steps` products each. The empty asm hides the values from the compiler,
// which would otherwise merge the chains. Returns the number of operations.
#define PEAK(name, instructions, type, zero, product, operations)                                  \
    __attribute__((target(instructions))) static double name(int64_t steps) {                      \
        enum { CHAINS = 10 };                                                                      \
        type sum[CHAINS], x = zero;                                                                \
        for (int i = 0; i < CHAINS; i++) {                                                         \
            sum[i] = zero;                                                                         \
            __asm__ volatile("" : "+v"(sum[i]));                                                   \
        }                                                                                          \
        for (int64_t s = 0; s < steps; s++) {                                                      \
            __asm__ volatile("" : "+v"(x));                                                        \
            _Pragma("GCC unroll 10") for (int i = 0; i < CHAINS; i++) sum[i] = product;            \
        }                                                                                          \
        for (int i = 0; i < CHAINS; i++)                                                           \
            __asm__ volatile("" ::"v"(sum[i]));                                                    \
        return (double)CHAINS * steps * operations;                                                \
    }

PEAK(f32_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, x, sum[i]), 16)
PEAK(int8_avx2, "avx2", __m256i, _mm256_setzero_si256(),
     _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(x, sum[i])), 64)
PEAK(int8_avxvnni, "avx2,avxvnni", __m256i, _mm256_setzero_si256(),
     _mm256_dpbusd_avx_epi32(sum[i], x, x), 64)
PEAK(f32_avx512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(x, x, sum[i]), 32)
PEAK(int8_avx512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(),
     _mm512_dpbusd_epi32(sum[i], x, x), 128)
PEAK(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(),
     _mm512_dpbf16_ps(sum[i], (__m512bh)x, (__m512bh)x), 64)

#define TILES(name, product, operations)                                                           \
    __attribute__((target("amx-tile,amx-int8,amx-bf16"))) static double name(int64_t steps) {      \
        uint8_t config[64] = {1};                                                                  \
        for (int i = 0; i < 8; i++) {                                                              \
            config[16 + 2 * i] = 64;                                                               \
            config[48 + i] = 16;                                                                   \
        }                                                                                          \
        __asm__ volatile("" ::"r"(config) : "memory");                                            \
        _tile_loadconfig(config);                                                                  \
        for (int64_t s = 0; s < steps; s++) {                                                      \
            product(0, 4, 6);                                                                      \
            product(1, 4, 7);                                                                      \
            product(2, 5, 6);                                                                      \
            product(3, 5, 7);                                                                      \
        }                                                                                          \
        _tile_release();                                                                           \
        return 4.0 * steps * operations;                                                           \
    }

TILES(int8_amx, _tile_dpbssd, 2 * 16 * 16 * 64)
TILES(bf16_amx, _tile_dpbf16ps, 2 * 16 * 16 * 32)

static const struct {
    const char *name;
    double (*run)(int64_t);
} peaks[] = {
    {"avx2 int8", int8_avx2},       {"avx2 bf16", f32_avx2},         {"avxvnni int8", int8_avxvnni},
    {"avxvnni bf16", f32_avx2},     {"avx512vnni int8", int8_avx512}, {"avx512vnni bf16", f32_avx512},
    {"avx512 int8", int8_avx512},   {"avx512 bf16", bf16_avx512},    {"amx int8", int8_amx},
    {"amx bf16", bf16_amx},
};

double probe_peak(const char *name, int64_t steps) {
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
        if (!strcmp(peaks[i].name, name))
            return peaks[i].run(steps);
    return 0;
}

#else

uint64_t probe_read(const char *p, size_t bytes) {
    uint64_t sum[8] = {0}, words[8];
    for (const char *end = p + bytes; p < end; p += 64) {
        __builtin_prefetch(p + 4096);
        memcpy(words, p, 64);
        for (int i = 0; i < 8; i++)
            sum[i] += words[i];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

double probe_peak(const char *name, int64_t steps) {
    (void)name, (void)steps;
    return 0;
}

#endif
