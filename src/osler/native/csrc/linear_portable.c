// The linear layers in plain C: the definition of what the other kernels compute, and what runs
// where there are none. Inner loops go over the 16 rows of a block, so that compilers vectorise.
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "linear_blocks.h"

enum { ROWS = OSL_ROW_BLOCK };

// ------------------------------------------------------------------ activations

static void fill_bf16(osl_acts *acts, const float *x, int32_t token) {
    osl_bf16 *values = (osl_bf16 *)acts->values + token * acts->stride;
    for (int32_t i = 0; i < acts->cols; i++)
        values[i] = osl_bf16_from_float(x[i]);
    memset(values + acts->cols, 0, (size_t)(acts->stride - acts->cols) * sizeof *values);
}

// The bits of floats order as their magnitudes do, with infinity and then NaN on top.
static float largest(const float *x, int32_t n) {
    uint32_t bits = 0;
    for (int32_t i = 0; i < n; i++) {
        uint32_t magnitude = osl_bits(x[i]) & 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
    }
    return osl_float(bits);
}

static void fill_int8(osl_acts *acts, const float *x, int32_t token) {
    int8_t *values = (int8_t *)acts->values + token * acts->stride;
    int32_t groups = (acts->cols + acts->group - 1) / acts->group;
    for (int32_t g = 0; g < groups; g++) {
        int32_t first = g * acts->group, left = acts->cols - first;
        int32_t n = left < acts->group ? left : acts->group;
        float max = largest(x + first, n), scale = max < 0x1p-100f ? 0 : max / 127.0f;
        bool none = !(scale > 0 && isfinite(scale));
        float inverse = none ? 0 : 1.0f / scale;
        for (int32_t i = 0; i < n; i++)
            values[first + i] = none ? 0 : (int8_t)lrintf(x[first + i] * inverse);
        acts->scale[(int64_t)token * groups + g] = isfinite(scale) ? scale : NAN;
    }
    memset(values + acts->cols, 0, (size_t)(acts->stride - acts->cols));
    int32_t part = acts->format == OSL_INT4 ? 32 : acts->group;
    int32_t parts = acts->format == OSL_INT4 ? 8 * groups : groups;
    for (int32_t p = 0; p < parts; p++) {
        int32_t sum = 0;
        for (int32_t i = p * part; i < (p + 1) * part && i < acts->stride; i++)
            sum += values[i];
        acts->sum[(int64_t)token * parts + p] = sum;
    }
}

static void fill(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last) {
    for (int32_t token = first; token < last; token++) {
        if (acts->format == OSL_BF16)
            fill_bf16(acts, x + token * ldx, token);
        else
            fill_int8(acts, x + token * ldx, token);
    }
}

// ------------------------------------------------------------------ products

static void dots_bf16(const osl_bf16 *panel, int32_t columns, const osl_bf16 *x, int64_t stride,
                      int32_t tokens, float sum[OSL_TILE][ROWS]) {
    for (int32_t i = 0; i < tokens; i++, x += stride) {
        float total[ROWS] = {0};
        for (int32_t p = 0; p < columns / 2; p++) {
            float even = osl_bf16_to_float(x[2 * p]), odd = osl_bf16_to_float(x[2 * p + 1]);
            uint32_t both[ROWS];
            memcpy(both, panel + (int64_t)p * 2 * ROWS, sizeof both);
            for (int r = 0; r < ROWS; r++)
                total[r] += osl_float(both[r] << 16) * even + osl_float(both[r] & 0xffff0000) * odd;
        }
        memcpy(sum[i], total, sizeof total);
    }
}

static void dots(const int8_t *panel, int32_t columns, const int8_t *x, int64_t stride,
                 int32_t tokens, int32_t sum[OSL_TILE][ROWS]) {
    for (int32_t i = 0; i < tokens; i++, x += stride) {
        int32_t total[ROWS] = {0};
        for (int32_t c = 0; c < columns; c += 4)
            for (int r = 0; r < ROWS; r++) {
                const int8_t *w = panel + (int64_t)c * ROWS + 4 * r, *a = x + c;
                total[r] += w[0] * a[0] + w[1] * a[1] + w[2] * a[2] + w[3] * a[3];
            }
        memcpy(sum[i], total, sizeof total);
    }
}

// 4 lines, each with 4 columns in the low and the next 4 in the high nibbles.
static void widen(const uint8_t *nibbles, const int8_t multiplier[ROWS], int8_t *panel) {
    for (int line = 0; line < 4; line++)
        for (int i = 0; i < 64; i++) {
            uint8_t both = nibbles[64 * line + i];
            panel[128 * line + i] = (int8_t)(((both & 15) - 8) * multiplier[i / 4]);
            panel[128 * line + 64 + i] = (int8_t)(((both >> 4) - 8) * multiplier[i / 4]);
        }
}

static void multiply(const osl_matrix *w, const osl_acts *acts, const osl_out *out, int32_t first,
                     int32_t last) {
    static const osl_blocks blocks = {.dots = dots, .dots_bf16 = dots_bf16, .widen = widen};
    osl_blocks_multiply(&blocks, w, acts, out, first, last);
}

const osl_kernels osl_kernels_portable = {
    .name = "portable",
    .fill = fill,
    .multiply = {multiply, multiply, multiply, multiply, multiply},
};
