// The products of attention in plain C, a line of the page at a time.
#include "attention_decoder.h"
#include "common.h"

static inline float low(osl_pair pair) {
    return osl_float(pair << 16);
}

static inline float high(osl_pair pair) {
    return osl_float(pair & 0xffff0000);
}

OSL_CLONES static void scores(const osl_bf16 *q, int32_t rows, int32_t dim, const osl_pair *keys,
                              float *score) {
    for (int32_t r = 0; r < rows; r++, q += dim, score += OSL_KEYS) {
        float sum[OSL_PAGE] = {0};
        const osl_pair *line = keys;
        for (int32_t d = 0; d < dim; d += 2, line += OSL_PAGE) {
            float a = osl_bf16_to_float(q[d]), b = osl_bf16_to_float(q[d + 1]);
            for (int32_t j = 0; j < OSL_PAGE; j++)
                sum[j] += a * low(line[j]) + b * high(line[j]);
        }
        for (int32_t j = 0; j < OSL_PAGE; j++)
            score[j] = sum[j];
    }
}

OSL_CLONES static void weigh_page(const osl_bf16 *weight, int32_t rows, int32_t dim,
                                  const osl_pair *values, float *acc) {
    for (int32_t r = 0; r < rows; r++, weight += OSL_KEYS, acc += dim) {
        const osl_pair *line = values;
        for (int32_t j = 0; j < OSL_PAGE; j += 4, line += 2 * dim) {
            float a = osl_bf16_to_float(weight[j]), b = osl_bf16_to_float(weight[j + 1]);
            float c = osl_bf16_to_float(weight[j + 2]), e = osl_bf16_to_float(weight[j + 3]);
            if (a == 0 && b == 0 && c == 0 && e == 0)
                continue;
            const osl_pair *next = line + dim;
            for (int32_t d = 0; d < dim; d++)
                acc[d] += (a * low(line[d]) + b * high(line[d])) +
                          (c * low(next[d]) + e * high(next[d]));
        }
    }
}

static void weigh(const osl_bf16 *weight, int32_t rows, int32_t dim, const osl_pair *const *values,
                  int32_t pages, float *acc) {
    for (int32_t page = 0; page < pages; page++)
        weigh_page(weight + page * OSL_PAGE, rows, dim, values[page], acc);
}

OSL_CLONES static void widen(const int8_t *from, osl_pair *to, int32_t pairs) {
    for (int32_t i = 0; i < pairs; i++)
        to[i] = osl_bits((float)from[2 * i]) >> 16 |
                (osl_bits((float)from[2 * i + 1]) & 0xffff0000);
}

const osl_paged_kernels osl_paged_portable = {"portable", scores, weigh, widen};
