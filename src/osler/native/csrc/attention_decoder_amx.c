// The products of attention with AMX tiles of 16 rows x 64 bytes: 16 queries x 32 dimensions times
// 16 pairs of dimensions x 16 keys, and 16 queries x 32 keys times 16 pairs of keys x 16 dimensions.
// Four sums (tiles 0 to 3) hide the latency of one another.
#include "attention_decoder.h"
#include "kernels.h"

#if defined(OSL_X86)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,amx-tile,amx-bf16")
#endif

#include <immintrin.h>

enum { SIDE = 16, DEPTH = 32, KEY_BYTES = OSL_PAGE * 4, ROW = OSL_KEYS };

static const struct {
    uint8_t palette, start_row, nothing[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tiles = {
    .palette = 1,
    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE},
};

// 32 rows x 32 keys.
static void score_two(const osl_bf16 *q, int32_t dim, const osl_pair *keys, float *score) {
    const osl_bf16 *next = q + SIDE * dim;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int32_t d = 0; d < dim; d += DEPTH, keys += DEPTH / 2 * OSL_PAGE) {
        _tile_loadd(4, q + d, dim * 2);
        _tile_loadd(6, keys, KEY_BYTES);
        _tile_loadd(5, next + d, dim * 2);
        _tile_loadd(7, keys + SIDE, KEY_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, score, ROW * 4);
    _tile_stored(1, score + SIDE, ROW * 4);
    _tile_stored(2, score + SIDE * ROW, ROW * 4);
    _tile_stored(3, score + SIDE * ROW + SIDE, ROW * 4);
}

// 16 rows x 64 keys.
static void score_one(const osl_bf16 *q, int32_t dim, const osl_pair *keys, float *score) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int32_t d = 0; d < dim; d += DEPTH, keys += DEPTH / 2 * OSL_PAGE) {
        _tile_loadd(4, q + d, dim * 2);
        _tile_loadd(5, keys, KEY_BYTES);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, keys + SIDE, KEY_BYTES);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, keys + 2 * SIDE, KEY_BYTES);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, keys + 3 * SIDE, KEY_BYTES);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, score, ROW * 4);
    _tile_stored(1, score + SIDE, ROW * 4);
    _tile_stored(2, score + 2 * SIDE, ROW * 4);
    _tile_stored(3, score + 3 * SIDE, ROW * 4);
}

static void scores(const osl_bf16 *q, int32_t rows, int32_t dim, const osl_pair *keys,
                   float *score) {
    _tile_loadconfig(&tiles);
    int32_t r = 0;
    for (; r + SIDE < rows; r += 2 * SIDE)
        for (int32_t key = 0; key < OSL_PAGE; key += 2 * SIDE)
            score_two(q + r * dim, dim, keys + key, score + r * ROW + key);
    if (r < rows)
        score_one(q + r * dim, dim, keys, score + r * ROW);
    _tile_release();
}

// 32 rows x 32 dimensions.
static void weigh_two(const osl_bf16 *weight, int32_t dim, const osl_pair *const *values,
                      int32_t first, int32_t pages, float *acc) {
    const int64_t step = dim * 4;
    float *next = acc + SIDE * dim;
    _tile_loadd(0, acc, step);
    _tile_loadd(1, acc + SIDE, step);
    _tile_loadd(2, next, step);
    _tile_loadd(3, next + SIDE, step);
    for (int32_t j = 0; j < pages * OSL_PAGE; j += DEPTH) {
        const osl_pair *v = values[j / OSL_PAGE] + j % OSL_PAGE / 2 * dim + first;
        _tile_loadd(4, weight + j, ROW * 2);
        _tile_loadd(6, v, step);
        _tile_loadd(5, weight + SIDE * ROW + j, ROW * 2);
        _tile_loadd(7, v + SIDE, step);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, acc, step);
    _tile_stored(1, acc + SIDE, step);
    _tile_stored(2, next, step);
    _tile_stored(3, next + SIDE, step);
}

// 16 rows x 32 dimensions.
static void weigh_one(const osl_bf16 *weight, int32_t dim, const osl_pair *const *values,
                      int32_t first, int32_t pages, float *acc) {
    const int64_t step = dim * 4;
    _tile_loadd(0, acc, step);
    _tile_loadd(1, acc + SIDE, step);
    for (int32_t j = 0; j < pages * OSL_PAGE; j += DEPTH) {
        const osl_pair *v = values[j / OSL_PAGE] + j % OSL_PAGE / 2 * dim + first;
        _tile_loadd(4, weight + j, ROW * 2);
        _tile_loadd(6, v, step);
        _tile_loadd(7, v + SIDE, step);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, acc, step);
    _tile_stored(1, acc + SIDE, step);
}

static void weigh(const osl_bf16 *weight, int32_t rows, int32_t dim, const osl_pair *const *values,
                  int32_t pages, float *acc) {
    _tile_loadconfig(&tiles);
    int32_t r = 0;
    for (; r + SIDE < rows; r += 2 * SIDE)
        for (int32_t d = 0; d < dim; d += 2 * SIDE)
            weigh_two(weight + r * ROW, dim, values, d, pages, acc + r * dim + d);
    if (r < rows)
        for (int32_t d = 0; d < dim; d += 2 * SIDE)
            weigh_one(weight + r * ROW, dim, values, d, pages, acc + r * dim + d);
    _tile_release();
}

const osl_paged_kernels osl_paged_amx = {"amx", scores, weigh, osl_widen_vbmi};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
