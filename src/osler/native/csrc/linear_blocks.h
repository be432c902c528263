// The walk over row blocks, groups and tokens that kernels can share which differ only in how they
// multiply a panel: a row block's columns as int8 [columns / 4][16 rows][4 columns].
#ifndef OSL_LINEAR_BLOCKS_H
#define OSL_LINEAR_BLOCKS_H

#include "linear.h"

enum { OSL_TILE = 4 }; // tokens that a panel is multiplied with at once

typedef struct {
    // The largest magnitude of x; what is not finite if there is any.
    float (*largest)(const float *x, int32_t n);
    // values = x * inverse, rounded to nearest even.
    void (*round)(const float *x, float inverse, int32_t n, int8_t *values);
    // sum[i][r] = row r times token i, of `tokens` tokens (1 to OSL_TILE) that are `stride` values
    // apart. `columns` is a multiple of 16.
    void (*dots)(const int8_t *panel, int32_t columns, const int8_t *x, int64_t stride,
                 int32_t tokens, int32_t sum[OSL_TILE][OSL_ROW_BLOCK]);
    // The same for OSL_BF16, with [columns / 2][16 rows][2 columns] of weights.
    void (*dots_bf16)(const osl_bf16 *panel, int32_t columns, const osl_bf16 *x, int64_t stride,
                      int32_t tokens, float sum[OSL_TILE][OSL_ROW_BLOCK]);
    // 32 columns of nibbles to a panel, each row times its multiplier.
    void (*widen)(const uint8_t *nibbles, const int8_t multiplier[OSL_ROW_BLOCK], int8_t *panel);
    // A row block of OSL_INT4 or OSL_Q4_0 times one token, before any row_scale; NULL: by way of
    // panels. `x`, `scale` and `sum` are that token's.
    void (*one_int4)(const uint8_t *units, int32_t groups, const int8_t *x, const float *scale,
                     const int32_t *sum, float v[OSL_ROW_BLOCK]);
    void (*one_q4_0)(const uint8_t *units, int32_t groups, const int8_t *x, const float *scale,
                     const int32_t *sum, float v[OSL_ROW_BLOCK]);
} osl_blocks;

// osl_acts_fill() and osl_multiply(), for all formats.
void osl_blocks_fill(const osl_blocks *with, osl_acts *acts, const float *x, int64_t ldx,
                     int32_t first, int32_t last);
void osl_blocks_multiply(const osl_blocks *with, const osl_matrix *w, const osl_acts *acts,
                         const osl_out *out, int32_t first, int32_t last);

#endif
