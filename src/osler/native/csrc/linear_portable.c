// The linear layers in plain C: the definition of what the other kernels compute, and what runs
// where there are none. Inner loops go over the 16 rows of a block, so that compilers vectorise.
#include <math.h>
#include <stdbool.h>

#include "kernels.h"

enum { ROWS = OSL_ROW_BLOCK, TOKENS = 32, LONGEST_GROUP = 256 };

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

// ------------------------------------------------------------------ one block of rows

// v[i][r] is row 16 block + r of token first + i, without bias.
typedef void block_fn(const osl_matrix *w, const osl_acts *acts, int32_t block, int32_t first,
                      int32_t tokens, float v[TOKENS][ROWS]);

static void block_bf16(const osl_matrix *w, const osl_acts *acts, int32_t block, int32_t first,
                       int32_t tokens, float v[TOKENS][ROWS]) {
    int32_t pairs = (w->cols + 31) / 32 * 16;
    const uint8_t *data = w->data + (int64_t)block * pairs * 64;
    for (int32_t i = 0; i < tokens; i++) {
        const osl_bf16 *x = (const osl_bf16 *)acts->values + (first + i) * acts->stride;
        float sum[ROWS] = {0};
        for (int32_t p = 0; p < pairs; p++) {
            float even = osl_bf16_to_float(x[2 * p]), odd = osl_bf16_to_float(x[2 * p + 1]);
            uint32_t both[ROWS];
            memcpy(both, data + (int64_t)p * 64, sizeof both);
            for (int r = 0; r < ROWS; r++)
                sum[r] += osl_float(both[r] << 16) * even + osl_float(both[r] & 0xffff0000) * odd;
        }
        memcpy(v[i], sum, sizeof sum);
    }
}

// A group of columns as int8 [columns / 4][16 rows][4 columns], in `room` where it is not stored
// so, and what its sums are to be multiplied by besides the activations' scale.
typedef const int8_t *panel_fn(const osl_matrix *w, int32_t block, int32_t group,
                               int8_t room[LONGEST_GROUP * ROWS], float scale[ROWS]);

static const int8_t *panel_int8(const osl_matrix *w, int32_t block, int32_t group, int8_t *room,
                                float scale[ROWS]) {
    (void)room;
    for (int r = 0; r < ROWS; r++)
        scale[r] = 1;
    int64_t columns = (int64_t)(w->cols + 63) / 64 * 64;
    return (const int8_t *)w->data + (block * columns + (int64_t)group * w->group) * ROWS;
}

// 32 columns: 4 lines, each with 4 columns in the low and the next 4 in the high nibbles.
static void widen(const uint8_t *nibbles, const int8_t multiplier[ROWS], int8_t *panel) {
    for (int line = 0; line < 4; line++)
        for (int i = 0; i < 64; i++) {
            uint8_t both = nibbles[64 * line + i];
            panel[128 * line + i] = (int8_t)(((both & 15) - 8) * multiplier[i / 4]);
            panel[128 * line + 64 + i] = (int8_t)(((both >> 4) - 8) * multiplier[i / 4]);
        }
}

static const int8_t *panel_int4(const osl_matrix *w, int32_t block, int32_t group, int8_t *room,
                                float scale[ROWS]) {
    int64_t units = (w->cols + 255) / 256;
    const uint8_t *unit = w->data + (block * units + group) * 2112;
    for (int g = 0; g < 8; g++) {
        int8_t multiplier[ROWS];
        for (int r = 0; r < 8; r++) {
            uint8_t both = unit[2048 + 8 * g + r];
            multiplier[r] = (int8_t)((both & 15) + 1);
            multiplier[r + 8] = (int8_t)((both >> 4) + 1);
        }
        widen(unit + 256 * g, multiplier, room + 512 * g);
    }
    for (int r = 0; r < ROWS; r++)
        scale[r] = 1;
    return room;
}

static void fp16_scales(const uint8_t *stored, float scale[ROWS]) {
    for (int r = 0; r < ROWS; r++) {
        osl_fp16 half;
        memcpy(&half, stored + 2 * r, sizeof half);
        scale[r] = osl_fp16_to_float(half);
    }
}

static const int8_t *panel_q8_0(const osl_matrix *w, int32_t block, int32_t group, int8_t *room,
                                float scale[ROWS]) {
    (void)room;
    int64_t units = (w->cols + 31) / 32;
    const uint8_t *unit = w->data + (block * units + group) * 544;
    fp16_scales(unit + 512, scale);
    return (const int8_t *)unit;
}

static const int8_t *panel_q4_0(const osl_matrix *w, int32_t block, int32_t group, int8_t *room,
                                float scale[ROWS]) {
    static const int8_t ones[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int64_t units = (w->cols + 31) / 32;
    const uint8_t *unit = w->data + (block * units + group) * 288;
    fp16_scales(unit + 256, scale);
    widen(unit, ones, room);
    return room;
}

static void dot(const int8_t *panel, const int8_t *x, int32_t quads, int32_t sum[ROWS]) {
    int32_t total[ROWS] = {0};
    for (int32_t q = 0; q < quads; q++)
        for (int r = 0; r < ROWS; r++) {
            const int8_t *w = panel + 64 * (int64_t)q + 4 * r, *a = x + 4 * (int64_t)q;
            total[r] += w[0] * a[0] + w[1] * a[1] + w[2] * a[2] + w[3] * a[3];
        }
    memcpy(sum, total, sizeof total);
}

static inline void block_of_panels(const osl_matrix *w, const osl_acts *acts, int32_t block,
                                   int32_t first, int32_t tokens, float v[TOKENS][ROWS],
                                   panel_fn *panel_of) {
    int32_t groups = (w->cols + w->group - 1) / w->group;
    int8_t room[LONGEST_GROUP * ROWS];
    memset(v, 0, sizeof(float) * ROWS * (size_t)tokens);
    for (int32_t g = 0; g < groups; g++) {
        int32_t left = w->cols - g * w->group, n = left < w->group ? left : w->group;
        float scale[ROWS];
        const int8_t *panel = panel_of(w, block, g, room, scale);
        for (int32_t i = 0; i < tokens; i++) {
            int64_t token = first + i;
            const int8_t *x = (const int8_t *)acts->values + token * acts->stride;
            int32_t sum[ROWS];
            dot(panel, x + (int64_t)g * w->group, (n + 3) / 4, sum);
            float x_scale = acts->scale[token * groups + g];
            for (int r = 0; r < ROWS; r++)
                v[i][r] += (float)sum[r] * (x_scale * scale[r]);
        }
    }
    if (w->row_scale)
        for (int32_t i = 0; i < tokens; i++)
            for (int r = 0; r < ROWS; r++)
                v[i][r] *= w->row_scale[(int64_t)block * ROWS + r];
}

static void block_int8(const osl_matrix *w, const osl_acts *acts, int32_t block, int32_t first,
                       int32_t tokens, float v[TOKENS][ROWS]) {
    block_of_panels(w, acts, block, first, tokens, v, panel_int8);
}

static void block_int4(const osl_matrix *w, const osl_acts *acts, int32_t block, int32_t first,
                       int32_t tokens, float v[TOKENS][ROWS]) {
    block_of_panels(w, acts, block, first, tokens, v, panel_int4);
}

static void block_q8_0(const osl_matrix *w, const osl_acts *acts, int32_t block, int32_t first,
                       int32_t tokens, float v[TOKENS][ROWS]) {
    block_of_panels(w, acts, block, first, tokens, v, panel_q8_0);
}

static void block_q4_0(const osl_matrix *w, const osl_acts *acts, int32_t block, int32_t first,
                       int32_t tokens, float v[TOKENS][ROWS]) {
    block_of_panels(w, acts, block, first, tokens, v, panel_q4_0);
}

// ------------------------------------------------------------------ the way out

static void add_bias(const osl_matrix *w, const osl_out *out, int32_t block, int32_t tokens,
                     float v[TOKENS][ROWS]) {
    int32_t row = block * ROWS, left = w->rows - row;
    if (!out->bias)
        return;
    for (int32_t i = 0; i < tokens; i++)
        for (int r = 0; r < ROWS && r < left; r++)
            v[i][r] += out->bias[row + r];
}

static void put(const osl_out *out, float *y, const float v[ROWS], const float up[ROWS], int32_t n) {
    switch (out->kind) {
    case OSL_STORE:
        memcpy(y, v, sizeof(float) * (size_t)n);
        break;
    case OSL_ADD:
        for (int32_t r = 0; r < n; r++)
            y[r] += v[r];
        break;
    case OSL_GELU:
        for (int32_t r = 0; r < n; r++)
            y[r] = osl_gelu_tanh(v[r]);
        break;
    default:
        for (int32_t r = 0; r < n; r++)
            y[r] = osl_gelu_tanh(v[r]) * up[r];
    }
}

static inline void multiply(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                            int32_t first, int32_t last, block_fn *block_of) {
    int32_t step = out->kind == OSL_GEGLU ? 2 : 1;
    float v[TOKENS][ROWS], up[TOKENS][ROWS];
    for (int32_t token = 0; token < acts->tokens; token += TOKENS) {
        int32_t left = acts->tokens - token, tokens = left < TOKENS ? left : TOKENS;
        for (int32_t block = first; block < last; block += step) {
            block_of(w, acts, block, token, tokens, v);
            add_bias(w, out, block, tokens, v);
            if (step == 2) {
                block_of(w, acts, block + 1, token, tokens, up);
                add_bias(w, out, block + 1, tokens, up);
            }
            int32_t column = block / step * ROWS, columns = w->rows / step - column;
            for (int32_t i = 0; i < tokens; i++)
                put(out, out->y + (token + i) * out->ldy + column, v[i], up[i],
                    columns < ROWS ? columns : ROWS);
        }
    }
}

static void multiply_bf16(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                          int32_t first, int32_t last) {
    multiply(w, acts, out, first, last, block_bf16);
}

static void multiply_int8(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                          int32_t first, int32_t last) {
    multiply(w, acts, out, first, last, block_int8);
}

static void multiply_int4(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                          int32_t first, int32_t last) {
    multiply(w, acts, out, first, last, block_int4);
}

static void multiply_q8_0(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                          int32_t first, int32_t last) {
    multiply(w, acts, out, first, last, block_q8_0);
}

static void multiply_q4_0(const osl_matrix *w, const osl_acts *acts, const osl_out *out,
                          int32_t first, int32_t last) {
    multiply(w, acts, out, first, last, block_q4_0);
}

const osl_kernels osl_kernels_portable = {
    .name = "portable",
    .fill = fill,
    .multiply = {multiply_bf16, multiply_int8, multiply_int4, multiply_q8_0, multiply_q4_0},
};
