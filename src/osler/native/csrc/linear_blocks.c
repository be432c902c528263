#include "linear_blocks.h"

#include <math.h>
#include <stdbool.h>

enum { ROWS = OSL_ROW_BLOCK, TOKENS = 32, PANEL_COLUMNS = 256 };

static int32_t least(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static int32_t up(int32_t value, int32_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// ------------------------------------------------------------------ activations

static void fill_bf16(osl_acts *acts, const float *x, int32_t token) {
    osl_bf16 *values = (osl_bf16 *)acts->values + token * acts->stride;
    for (int32_t i = 0; i < acts->cols; i++)
        values[i] = osl_bf16_from_float(x[i]);
    memset(values + acts->cols, 0, (size_t)(acts->stride - acts->cols) * sizeof *values);
}

static void fill_int8(const osl_blocks *with, osl_acts *acts, const float *x, int32_t token) {
    int8_t *values = (int8_t *)acts->values + token * acts->stride;
    int32_t groups = (acts->cols + acts->group - 1) / acts->group;
    for (int32_t g = 0; g < groups; g++) {
        int32_t first = g * acts->group, left = acts->cols - first;
        int32_t n = left < acts->group ? left : acts->group;
        float max = with->largest(x + first, n), scale = max < 0x1p-100f ? 0 : max / 127.0f;
        if (scale > 0 && isfinite(scale))
            with->round(x + first, 1.0f / scale, n, values + first);
        else
            memset(values + first, 0, (size_t)n);
        acts->scale[(int64_t)token * groups + g] = isfinite(scale) ? scale : NAN;
    }
    memset(values + acts->cols, 0, (size_t)(acts->stride - acts->cols));
    int32_t part = acts->format == OSL_INT4 ? 32 : acts->group;
    int32_t parts = acts->format == OSL_INT4 ? 8 * groups : groups;
    for (int32_t p = 0; p < parts; p++) {
        int32_t sum = 0;
        for (int64_t i = (int64_t)p * part; i < (int64_t)(p + 1) * part && i < acts->stride; i++)
            sum += values[i];
        acts->sum[(int64_t)token * parts + p] = sum;
    }
}

void osl_blocks_fill(const osl_blocks *with, osl_acts *acts, const float *x, int64_t ldx,
                     int32_t first, int32_t last) {
    for (int32_t token = first; token < last; token++) {
        if (acts->format == OSL_BF16)
            fill_bf16(acts, x + token * ldx, token);
        else
            fill_int8(with, acts, x + token * ldx, token);
    }
}

// ------------------------------------------------------------------ panels

static void fp16_scales(const uint8_t *stored, float scale[ROWS]) {
    for (int r = 0; r < ROWS; r++) {
        osl_fp16 half;
        memcpy(&half, stored + 2 * r, sizeof half);
        scale[r] = osl_fp16_to_float(half);
    }
}

static void widen_int4(const osl_blocks *with, const uint8_t *unit, int8_t *room) {
    for (int g = 0; g < 8; g++) {
        int8_t multiplier[ROWS];
        for (int r = 0; r < 8; r++) {
            uint8_t both = unit[2048 + 8 * g + r];
            multiplier[r] = (int8_t)((both & 15) + 1);
            multiplier[r + 8] = (int8_t)((both >> 4) + 1);
        }
        with->widen(unit + 256 * g, multiplier, room + 512 * g);
    }
}

// A group of columns as a panel, in `room` where it is not stored as one, and what its sums are to
// be multiplied by besides the scale of the activations.
static const int8_t *panel_of(const osl_blocks *with, const osl_matrix *w, int32_t block,
                              int32_t group, int8_t room[PANEL_COLUMNS * ROWS],
                              float scale[ROWS]) {
    static const int8_t ones[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int32_t unit = osl_column_unit(w->format);
    int64_t first = (int64_t)block * (up(w->cols, unit) / unit);
    const uint8_t *stored;
    for (int r = 0; r < ROWS; r++)
        scale[r] = 1;
    switch (w->format) {
    case OSL_INT8:
        return (const int8_t *)w->data + (first * unit + (int64_t)group * w->group) * ROWS;
    case OSL_INT4:
        widen_int4(with, w->data + (first + group) * 2112, room);
        return room;
    case OSL_Q8_0:
        stored = w->data + (first + group) * 544;
        fp16_scales(stored + 512, scale);
        return (const int8_t *)stored;
    default:
        stored = w->data + (first + group) * 288;
        fp16_scales(stored + 256, scale);
        with->widen(stored, ones, room);
        return room;
    }
}

// ------------------------------------------------------------------ one block of rows

// In these, v[i][r] becomes row 16 block + r of token first + i, without bias.

static void block_bf16(const osl_blocks *with, const osl_matrix *w, const osl_acts *acts,
                       int32_t block, int32_t first, int32_t tokens, float v[TOKENS][ROWS]) {
    int32_t columns = up(w->cols, osl_column_unit(OSL_BF16));
    const osl_bf16 *panel = (const osl_bf16 *)w->data + (int64_t)block * columns * ROWS;
    for (int32_t i = 0; i < tokens; i += OSL_TILE) {
        const osl_bf16 *x = (const osl_bf16 *)acts->values + (first + i) * acts->stride;
        with->dots_bf16(panel, columns, x, acts->stride, least(tokens - i, OSL_TILE), v + i);
    }
}

static bool one_token(const osl_blocks *with, const osl_matrix *w, const osl_acts *acts,
                      int32_t block, int32_t token, float v[ROWS]) {
    int32_t groups = up(w->cols, w->group) / w->group;
    const int8_t *x = (const int8_t *)acts->values + token * acts->stride;
    const float *scale = acts->scale + (int64_t)token * groups;
    int64_t place = (int64_t)block * groups;
    if (w->format == OSL_INT4 && with->one_int4) {
        const int32_t *sum = acts->sum + (int64_t)token * groups * 8;
        with->one_int4(w->data + place * 2112, groups, x, scale, sum, v);
        return true;
    }
    if (w->format == OSL_Q4_0 && with->one_q4_0) {
        const int32_t *sum = acts->sum + (int64_t)token * groups;
        with->one_q4_0(w->data + place * 288, groups, x, scale, sum, v);
        return true;
    }
    return false;
}

static void block_by_panels(const osl_blocks *with, const osl_matrix *w, const osl_acts *acts,
                            int32_t block, int32_t first, int32_t tokens, float v[TOKENS][ROWS]) {
    int32_t groups = up(w->cols, w->group) / w->group;
    int8_t room[PANEL_COLUMNS * ROWS];
    memset(v, 0, sizeof *v * (size_t)tokens);
    for (int32_t g = 0; g < groups; g++) {
        // The padding of weights and activations goes to the next multiple of 16 columns at least.
        int32_t start = g * w->group, columns = up(least(w->cols - start, w->group), 16);
        float scale[ROWS];
        const int8_t *panel = panel_of(with, w, block, g, room, scale);
        for (int32_t i = 0; i < tokens; i += OSL_TILE) {
            int32_t sum[OSL_TILE][ROWS], n = least(tokens - i, OSL_TILE);
            const int8_t *x = (const int8_t *)acts->values + (first + i) * acts->stride + start;
            with->dots(panel, columns, x, acts->stride, n, sum);
            for (int32_t t = 0; t < n; t++) {
                float x_scale = acts->scale[(int64_t)(first + i + t) * groups + g];
                for (int r = 0; r < ROWS; r++)
                    v[i + t][r] += (float)sum[t][r] * (x_scale * scale[r]);
            }
        }
    }
}

static void block_of(const osl_blocks *with, const osl_matrix *w, const osl_acts *acts,
                     const osl_out *out, int32_t block, int32_t first, int32_t tokens,
                     float v[TOKENS][ROWS]) {
    int32_t row = block * ROWS, rows = least(w->rows - row, ROWS);
    if (w->format == OSL_BF16)
        block_bf16(with, w, acts, block, first, tokens, v);
    else if (tokens > 1 || !one_token(with, w, acts, block, first, v[0]))
        block_by_panels(with, w, acts, block, first, tokens, v);
    for (int32_t i = 0; i < tokens; i++) {
        if (w->row_scale)
            for (int r = 0; r < ROWS; r++)
                v[i][r] *= w->row_scale[row + r];
        if (out->bias)
            for (int r = 0; r < rows; r++)
                v[i][r] += out->bias[row + r];
    }
}

// ------------------------------------------------------------------ the way out

static void put(const osl_out *out, float *y, const float v[ROWS], const float next[ROWS],
                int32_t n) {
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
            y[r] = osl_gelu_tanh(v[r]) * next[r];
    }
}

void osl_blocks_multiply(const osl_blocks *with, const osl_matrix *w, const osl_acts *acts,
                         const osl_out *out, int32_t first, int32_t last) {
    int32_t step = out->kind == OSL_GEGLU ? 2 : 1;
    float v[TOKENS][ROWS], next[TOKENS][ROWS];
    for (int32_t token = 0; token < acts->tokens; token += TOKENS) {
        int32_t tokens = least(acts->tokens - token, TOKENS);
        for (int32_t block = first; block < last; block += step) {
            block_of(with, w, acts, out, block, token, tokens, v);
            if (step == 2)
                block_of(with, w, acts, out, block + 1, token, tokens, next);
            int32_t column = block / step * ROWS;
            for (int32_t i = 0; i < tokens; i++)
                put(out, out->y + (token + i) * out->ldy + column, v[i], next[i],
                    least(w->rows / step - column, ROWS));
        }
    }
}
