// The linear layers in plain C: the definition of what the other kernels compute, and what runs
// where there are none. Inner loops go over the 16 rows of a block, so that compilers vectorise.
#include <math.h>

#include "kernels.h"
#include "linear_blocks.h"

enum { ROWS = OSL_ROW_BLOCK };

// ------------------------------------------------------------------ activations

// The bits of floats order as their magnitudes do, with infinity and then NaN on top.
static float largest(const float *x, int32_t n) {
    uint32_t bits = 0;
    for (int32_t i = 0; i < n; i++) {
        uint32_t magnitude = osl_bits(x[i]) & 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
    }
    return osl_float(bits);
}

static void round_int8(const float *x, float inverse, int32_t n, int8_t *values) {
    for (int32_t i = 0; i < n; i++)
        values[i] = (int8_t)lrintf(x[i] * inverse);
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

static const osl_blocks blocks = {
    .largest = largest, .round = round_int8, .dots = dots, .dots_bf16 = dots_bf16, .widen = widen};

static void fill(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last) {
    osl_blocks_fill(&blocks, acts, x, ldx, first, last);
}

static void multiply(const osl_matrix *w, const osl_acts *acts, const osl_out *out, int32_t first,
                     int32_t last) {
    osl_blocks_multiply(&blocks, w, acts, out, first, last);
}

const osl_kernels osl_kernels_portable = {
    .name = "portable",
    .fill = fill,
    .multiply = {multiply, multiply, multiply, multiply, multiply},
};
