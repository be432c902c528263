// What stands between the products of a decoder: norms, rotary embedding, rows of the embedding.
#ifndef OSL_DECODER_OPS_H
#define OSL_DECODER_OPS_H

#include "linear.h"

// y = x / rms(x) * (1 + weight).
void osl_rms_norm(const float *x, const float *weight, float eps, int32_t n, float *y);

// x += y / rms(y) * (1 + weight).
void osl_add_rms_norm(float *x, const float *y, const float *weight, float eps, int32_t n);

// Cosines and sines of one position, [dim / 2] each.
void osl_rotary_angles(int32_t position, const float *frequency, int32_t dim, float *cosine,
                       float *sine);

// One query or key, in place: norm, then pairs (i, i + dim / 2) turned by their angles.
void osl_norm_and_rotate(float *x, const float *weight, float eps, int32_t dim, const float *cosine,
                         const float *sine);

// y = bf16(x * factor).
void osl_to_bf16(const float *x, float factor, int32_t n, osl_bf16 *y);

// y = row `row` of packed weights times a factor.
void osl_matrix_row(const osl_matrix *w, int32_t row, float factor, float *y);

#endif
