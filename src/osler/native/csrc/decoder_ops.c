#include "decoder_ops.h"

#include <math.h>

#include "common.h"

enum { LANES = 16 };

// 1 / rms(x). Sixteen sums, so that it vectorises without leave to reorder.
static inline __attribute__((always_inline)) float inverse_rms(const float *x, float eps,
                                                               int32_t n) {
    float sum[LANES] = {0};
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int32_t l = 0; l < LANES; l++)
            sum[l] += x[i + l] * x[i + l];
    for (; i < n; i++)
        sum[i % LANES] += x[i] * x[i];
    for (int32_t half = LANES / 2; half > 0; half /= 2)
        for (int32_t l = 0; l < half; l++)
            sum[l] += sum[l + half];
    return 1 / sqrtf(sum[0] / (float)n + eps);
}

OSL_CLONES void osl_rms_norm(const float *x, const float *weight, float eps, int32_t n, float *y) {
    float factor = inverse_rms(x, eps, n);
    for (int32_t i = 0; i < n; i++)
        y[i] = x[i] * factor * (1 + weight[i]);
}

OSL_CLONES void osl_add_rms_norm(float *x, const float *y, const float *weight, float eps,
                                 int32_t n) {
    float factor = inverse_rms(y, eps, n);
    for (int32_t i = 0; i < n; i++)
        x[i] += y[i] * factor * (1 + weight[i]);
}

void osl_rotary_angles(int32_t position, const float *frequency, int32_t dim, float *cosine,
                       float *sine) {
    for (int32_t i = 0; i < dim / 2; i++) {
        float angle = (float)position * frequency[i];
        cosine[i] = cosf(angle);
        sine[i] = sinf(angle);
    }
}

OSL_CLONES void osl_norm_and_rotate(float *x, const float *weight, float eps, int32_t dim,
                                    const float *cosine, const float *sine) {
    float factor = inverse_rms(x, eps, dim);
    int32_t half = dim / 2;
    for (int32_t i = 0; i < half; i++) {
        float a = x[i] * factor * (1 + weight[i]);
        float b = x[half + i] * factor * (1 + weight[half + i]);
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = b * cosine[i] + a * sine[i];
    }
}

OSL_CLONES void osl_to_bf16(const float *x, float factor, int32_t n, osl_bf16 *y) {
    for (int32_t i = 0; i < n; i++)
        y[i] = osl_bf16_from_float(x[i] * factor);
}

// ---------------------------------------------------------------- rows of packed weights

static osl_fp16 half_at(const uint8_t *place) {
    osl_fp16 x;
    memcpy(&x, place, sizeof x);
    return x;
}

// Column `col` of a group of 32 in nibbles, for row r of the block.
static int32_t nibble(const uint8_t *group, int32_t r, int32_t col) {
    uint8_t both = group[col / 8 * 64 + 4 * r + col % 4];
    return (col % 8 < 4 ? both & 15 : both >> 4) - 8;
}

static void row_bf16(const uint8_t *data, int32_t cols, int32_t r, float factor, float *y) {
    for (int32_t c = 0; c < cols; c++) {
        osl_bf16 x;
        memcpy(&x, data + ((size_t)(c / 2) * OSL_ROW_BLOCK + (size_t)r) * 4 + (size_t)(c % 2) * 2,
               sizeof x);
        y[c] = osl_bf16_to_float(x) * factor;
    }
}

static void row_int8(const uint8_t *data, int32_t cols, int32_t r, float factor, float *y) {
    for (int32_t c = 0; c < cols; c++)
        y[c] = (float)(int8_t)data[(c / 4 * OSL_ROW_BLOCK + r) * 4 + c % 4] * factor;
}

static void row_int4(const uint8_t *data, int32_t cols, int32_t r, float factor, float *y) {
    for (int32_t c = 0; c < cols; c++) {
        const uint8_t *unit = data + (size_t)(c / 256) * 2112;
        int32_t group = c / 32 % 8;
        uint8_t both = unit[2048 + 8 * group + r % 8];
        int32_t multiplier = (r < 8 ? both & 15 : both >> 4) + 1;
        y[c] = (float)(multiplier * nibble(unit + 256 * group, r, c % 32)) * factor;
    }
}

static void row_q8_0(const uint8_t *data, int32_t cols, int32_t r, float factor, float *y) {
    for (int32_t c = 0; c < cols; c++) {
        const uint8_t *unit = data + (size_t)(c / 32) * 544;
        float scale = osl_fp16_to_float(half_at(unit + 512 + 2 * r)) * factor;
        y[c] = (float)(int8_t)unit[(c % 32 / 4 * OSL_ROW_BLOCK + r) * 4 + c % 4] * scale;
    }
}

static void row_q4_0(const uint8_t *data, int32_t cols, int32_t r, float factor, float *y) {
    for (int32_t c = 0; c < cols; c++) {
        const uint8_t *unit = data + (size_t)(c / 32) * 288;
        float scale = osl_fp16_to_float(half_at(unit + 256 + 2 * r)) * factor;
        y[c] = (float)nibble(unit, r, c % 32) * scale;
    }
}

void osl_matrix_row(const osl_matrix *w, int32_t row, float factor, float *y) {
    int32_t r = row % OSL_ROW_BLOCK;
    size_t block = osl_packed_bytes(w->format, OSL_ROW_BLOCK, w->cols);
    const uint8_t *data = w->data + (size_t)(row / OSL_ROW_BLOCK) * block;
    switch (w->format) {
    case OSL_BF16:
        row_bf16(data, w->cols, r, factor, y);
        break;
    case OSL_INT8:
        row_int8(data, w->cols, r, factor * w->row_scale[row], y);
        break;
    case OSL_INT4:
        row_int4(data, w->cols, r, factor * w->row_scale[row], y);
        break;
    case OSL_Q8_0:
        row_q8_0(data, w->cols, r, factor, y);
        break;
    default:
        row_q4_0(data, w->cols, r, factor, y);
    }
}
