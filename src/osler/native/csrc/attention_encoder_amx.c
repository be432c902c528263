// Attention of the encoder with AMX tiles; layouts in attention_encoder_bf16.h, dim in multiples of
// 32 (72 becomes 96).
//
// A tile is 16 rows of 64 bytes. Scores: Q 16 queries x 32 dimensions times K 16 pairs of dimensions
// x 16 keys. P V: P 16 queries x 32 keys times V 16 pairs of keys x 16 dimensions. Both take 32
// queries and two tiles of the other side at a time: four sums (tiles 0 to 3) hide the latency, and
// each loaded tile (4 to 7) is used twice.
#include "attention_encoder.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
#endif

#include <string.h>

#include "attention_encoder_bf16.h"
#include "cpu.h"

enum { QUERIES = 32, ROWS = 16, SCORE_BYTES = OSL_SCORE_STRIDE * 4 };

static const struct {
    uint8_t palette, start_row, nothing[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tiles = {
    .palette = 1,
    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS},
};

// 32 queries x `keys` scores.
static inline void score_tiles(const osl_bf16 *queries, const osl_bf16 *block, int32_t dim,
                               int32_t keys, float *scores) {
    const int64_t row = dim * (int64_t)sizeof(osl_bf16);
    for (int32_t k = 0; k < keys; k += 32, block += 32 * dim, scores += 32) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int32_t d = 0; d < dim; d += 32) {
            _tile_loadd(4, queries + d, row);
            _tile_loadd(5, queries + ROWS * dim + d, row);
            _tile_loadd(6, block + d * 16, 64);
            _tile_loadd(7, block + (dim + d) * 16, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, scores, SCORE_BYTES);
        _tile_stored(1, scores + 16, SCORE_BYTES);
        _tile_stored(2, scores + ROWS * OSL_SCORE_STRIDE, SCORE_BYTES);
        _tile_stored(3, scores + ROWS * OSL_SCORE_STRIDE + 16, SCORE_BYTES);
    }
}

// 32 queries x 32 dimensions of sums += P V.
static inline void value_tiles_2(const float *scores, const osl_bf16 *values, int32_t width,
                                 int32_t keys, float *sums) {
    const int64_t row = width * 4;
    const float *lower = scores + ROWS * OSL_SCORE_STRIDE;
    _tile_loadd(0, sums, row);
    _tile_loadd(1, sums + 16, row);
    _tile_loadd(2, sums + ROWS * width, row);
    _tile_loadd(3, sums + ROWS * width + 16, row);
    for (int32_t k = 0; k < keys; k += 32, values += 32 * width) {
        _tile_loadd(4, scores + k / 2, SCORE_BYTES);
        _tile_loadd(5, lower + k / 2, SCORE_BYTES);
        _tile_loadd(6, values, row);
        _tile_loadd(7, values + 32, row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, row);
    _tile_stored(1, sums + 16, row);
    _tile_stored(2, sums + ROWS * width, row);
    _tile_stored(3, sums + ROWS * width + 16, row);
}

// 32 queries x 16 dimensions of sums += P V.
static inline void value_tiles_1(const float *scores, const osl_bf16 *values, int32_t width,
                                 int32_t keys, float *sums) {
    const int64_t row = width * 4;
    const float *lower = scores + ROWS * OSL_SCORE_STRIDE;
    _tile_loadd(0, sums, row);
    _tile_loadd(1, sums + ROWS * width, row);
    for (int32_t k = 0; k < keys; k += 32, values += 32 * width) {
        _tile_loadd(4, scores + k / 2, SCORE_BYTES);
        _tile_loadd(5, lower + k / 2, SCORE_BYTES);
        _tile_loadd(6, values, row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
    }
    _tile_stored(0, sums, row);
    _tile_stored(1, sums + ROWS * width, row);
}

static void attend(const osl_heads *heads, const osl_head *head, float *out, int64_t stride,
                   int32_t first, int32_t last, void *scratch) {
    int32_t dim = heads->dim, width = heads->value_dim;
    float *scores = scratch, *sums = scores + QUERIES * OSL_SCORE_STRIDE;
    _tile_loadconfig(&tiles);
    for (int32_t q = first; q < last; q += QUERIES) {
        // Packed queries are padded to 32 as well; what is computed beyond `last` is dropped.
        const osl_bf16 *queries = (const osl_bf16 *)head->queries + (size_t)q * (size_t)dim;
        float max[QUERIES], sum[QUERIES] = {0};
        for (int i = 0; i < QUERIES; i++)
            max[i] = -0x1p29f;
        memset(sums, 0, QUERIES * (size_t)width * sizeof(float));
        for (int32_t k = 0; k < heads->keys; k += OSL_KEYS) {
            int32_t padded = heads->keys - k < OSL_KEYS ? heads->keys - k : OSL_KEYS;
            int32_t used = heads->positions - k < OSL_KEYS ? heads->positions - k : OSL_KEYS;
            const osl_bf16 *keys = (const osl_bf16 *)head->keys + (size_t)k * (size_t)dim;
            const osl_bf16 *values = (const osl_bf16 *)head->values + (size_t)k * (size_t)width;
            score_tiles(queries, keys, dim, padded, scores);
            for (int i = 0; i < QUERIES; i++) {
                float scale = osl_soften(scores + i * OSL_SCORE_STRIDE, used, padded, &max[i], &sum[i]);
                if (scale != 1.0f)
                    for (int32_t d = 0; d < width; d++)
                        sums[i * width + d] *= scale;
            }
            int32_t d = 0;
            for (; d + 32 <= width; d += 32)
                value_tiles_2(scores, values + 2 * d, width, padded, sums + d);
            if (d < width)
                value_tiles_1(scores, values + 2 * d, width, padded, sums + d);
        }
        int32_t count = last - q < QUERIES ? last - q : QUERIES;
        for (int32_t i = 0; i < count; i++)
            for (int32_t d = 0; d < heads->head_dim; d++)
                out[(q + i) * stride + d] = sums[i * width + d] / sum[i];
    }
    _tile_release();
}

static osl_heads layout(int32_t positions, int32_t head_dim) {
    return osl_attention_bf16_layout(positions, head_dim, 32);
}

static const osl_attention table = {
    .name = "amx",
    .tile = 64,
    .layout = layout,
    .pack = osl_attention_bf16_pack,
    .attend = attend,
};

const osl_attention *osl_attention_amx(void) {
    return osl_cpu_features()->amx ? &table : NULL;
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#else
const osl_attention *osl_attention_amx(void) {
    return NULL;
}
#endif
