// The running softmax in powers of two.
#include "attention_decoder.h"
#include "common.h"

enum {
    LANES = 16,
    SLACK = 7, // weights may grow to 2^7 before what was summed is scaled down
};

static const float LIMIT = 1e6f; // of scores, so that rounding by addition holds
static const float ROUND = 0x1.8p23f;

// The nearest integer, without a conversion that could overflow.
static inline int32_t nearest(float x) {
    return (int32_t)(osl_bits(x + ROUND) - osl_bits(ROUND));
}

static inline float power_of_two(int32_t exponent) {
    int32_t biased = exponent + 127;
    return osl_float((uint32_t)(biased > 0 ? biased : 0) << 23);
}

// 2^f for |f| <= 1/2, to 2e-7.
static inline float exp2_fraction(float f) {
    float p = 0x1.5bba0ep-10f;
    p = p * f + 0x1.3cea88p-7f;
    p = p * f + 0x1.c6b752p-5f;
    p = p * f + 0x1.ebf9bcp-3f;
    p = p * f + 0x1.62e42ap-1f;
    return p * f + 1.0f;
}

osl_softmax osl_softmax_start(void) {
    return (osl_softmax){.top = -(1 << 24), .total = 0};
}

static inline __attribute__((always_inline)) float
step(osl_softmax *sum, const float *score, int32_t keys, int32_t from, int32_t to,
     const float *key_scale, const float *value_scale, osl_bf16 *weight) {
    float wide[OSL_KEYS], most[LANES];
    for (int32_t l = 0; l < LANES; l++)
        most[l] = -LIMIT;
    for (int32_t j = 0; j < keys; j += LANES)
        for (int32_t l = 0; l < LANES; l++) {
            float x = key_scale ? score[j + l] * key_scale[j + l] : score[j + l];
            x = x > -LIMIT ? x : -LIMIT;
            x = x < LIMIT ? x : LIMIT;
            wide[j + l] = x;
            float seen = j + l >= from && j + l < to ? x : -LIMIT;
            most[l] = seen > most[l] ? seen : most[l];
        }
    for (int32_t l = 1; l < LANES; l++)
        most[0] = most[l] > most[0] ? most[l] : most[0];
    int32_t top = nearest(most[0]);
    top += (float)top < most[0];
    float factor = 1;
    if (top > sum->top + SLACK) {
        factor = power_of_two(sum->top - top);
        sum->top = top;
        sum->total *= factor;
    }
    top = sum->top;
    // Page by page, so that the order of additions does not depend on where a step began.
    for (int32_t page = 0; page < keys; page += OSL_PAGE) {
        float total[LANES] = {0};
        for (int32_t j = page; j < page + OSL_PAGE; j += LANES)
            for (int32_t l = 0; l < LANES; l++) {
                float x = wide[j + l];
                int32_t n = nearest(x);
                float p = exp2_fraction(x - (float)n) * power_of_two(n - top);
                p = j + l >= from && j + l < to ? p : 0;
                total[l] += p;
                if (value_scale)
                    p *= value_scale[j + l];
                uint32_t bits = osl_bits(p);
                weight[j + l] = (osl_bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
            }
        for (int32_t half = LANES / 2; half > 0; half /= 2)
            for (int32_t l = 0; l < half; l++)
                total[l] += total[l + half];
        sum->total += total[0];
    }
    return factor;
}

OSL_CLONES float osl_softmax_step(osl_softmax *sum, const float *score, int32_t keys, int32_t from,
                                  int32_t to, const float *key_scale, const float *value_scale,
                                  osl_bf16 *weight) {
    if (key_scale)
        return step(sum, score, keys, from, to, key_scale, value_scale, weight);
    return step(sum, score, keys, from, to, 0, 0, weight);
}
