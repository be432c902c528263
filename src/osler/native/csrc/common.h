// What every file here needs: the marks of functions, the 16-bit floats, and two functions that
// vectorise where libm's do not.
#ifndef OSL_COMMON_H
#define OSL_COMMON_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed weights are little-endian"
#endif

// A call for Python; everything else stays hidden.
#define OSL_API __attribute__((visibility("default")))

// Builds a function of plain C once for each generation of x86 and lets the loader choose. Not for
// files under `#pragma GCC target`.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define OSL_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define OSL_CLONES
#endif

typedef uint16_t osl_bf16;
typedef uint16_t osl_fp16;

static inline uint32_t osl_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float osl_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float osl_bf16_to_float(osl_bf16 x) {
    return osl_float((uint32_t)x << 16);
}

// Rounds to nearest even; a NaN stays one.
static inline osl_bf16 osl_bf16_from_float(float x) {
    uint32_t bits = osl_bits(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40;
    return (osl_bf16)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline float osl_fp16_to_float(osl_fp16 x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, rest = (uint32_t)(x & 0x7fff) << 13;
    if (rest >= 0x0f800000) // infinite or NaN
        return osl_float(sign | 0x70000000 | rest);
    // Moves the exponent from bias 15 to 127; exact for subnormals too.
    return osl_float(sign | osl_bits(osl_float(rest) * 0x1p112f));
}

// e^x to 2 units in the last place; 0 below -87.3, infinite above 88.7.
static inline float osl_exp(float x) {
    const float round = 0x1.8p23f; // adding it leaves the nearest integer in the low bits
    // Written so that a NaN stays one.
    float y = x > 88.8f ? 88.8f : x;
    y = y < -87.3f ? -87.3f : y;
    float shifted = y * 0x1.715476p0f + round;
    float n = shifted - round;
    float r = (y - n * 0x1.62e400p-1f) - n * 0x1.7f7d1cp-20f; // ln 2 in two parts
    float p = 0x1.6db4e0p-10f;
    p = p * r + 0x1.123be0p-7f;
    p = p * r + 0x1.55545ep-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0x1.000000p-1f;
    p = (p * r) * r + r + 1.0f;
    // 2^n in two factors: n may be 128, which one float cannot hold.
    uint32_t half = (uint32_t)((int32_t)(osl_bits(shifted) - osl_bits(round)) >> 1);
    uint32_t other = osl_bits(shifted) - osl_bits(round) - half;
    p = p * osl_float((half + 127) << 23) * osl_float((other + 127) << 23);
    return x < -87.3f ? 0.0f : p;
}

// The tanh form of GELU (arXiv 1606.08415), written as the sigmoid that it equals.
static inline float osl_gelu_tanh(float x) {
    return x / (1.0f + osl_exp(-x * (0x1.988454p0f + 0x1.2444f2p-4f * (x * x))));
}

#endif
