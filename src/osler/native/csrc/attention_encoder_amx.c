// Attention of the encoder with AMX tiles; layouts in attention_encoder_bf16.h, dim in multiples of
// 32 (72 becomes 96).
//
// A tile is 16 rows of 64 bytes. Scores: Q 16 queries x 32 dimensions times K 16 pairs of
// dimensions x 16 keys. P V: P 16 queries x 32 keys times V 16 pairs of keys x 16 dimensions. Both
// take 32 queries at a time, with four or six sums, to hide the latency.
#define OSL_WITH_AMX
#include "linear_avx512.h"

#ifdef OSL_X86

#include <string.h>

#include "attention_encoder_bf16.h"
#include "cpu.h"

enum { ROWS = 16, TILE = 512, SCORE_BYTES = OSL_SCORE_STRIDE * 4 };

// The compiler does not know that tile instructions read memory.
#define OSL_WRITTEN() __asm__ volatile("" ::: "memory")

static const struct {
    uint8_t palette, start_row, nothing[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tiles = {
    .palette = 1,
    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS},
};

static inline void score(const osl_heads *heads, const osl_head *head, int32_t q, int32_t queries,
                         int32_t k, int32_t keys, float *scores) {
    const int32_t dim = heads->dim;
    const int64_t row = dim * (int64_t)sizeof(osl_bf16);
    // Packed queries are padded to 32 as well.
    const osl_bf16 *upper = (const osl_bf16 *)head->queries + (size_t)q * (size_t)dim;
    const osl_bf16 *lower = upper + ROWS * dim;
    const osl_bf16 *block = (const osl_bf16 *)head->keys + (size_t)k * (size_t)dim;
    (void)queries;
    for (int32_t j = 0; j < keys; j += 32, block += 32 * dim) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int32_t d = 0; d < dim; d += 32) {
            _tile_loadd(6, block + d * 16, 64);
            _tile_loadd(4, upper + d, row);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, block + (dim + d) * 16, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, lower + d, row);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, scores + j, SCORE_BYTES);
        _tile_stored(1, scores + j + 16, SCORE_BYTES);
        _tile_stored(2, scores + ROWS * OSL_SCORE_STRIDE + j, SCORE_BYTES);
        _tile_stored(3, scores + ROWS * OSL_SCORE_STRIDE + j + 16, SCORE_BYTES);
    }
}

// 32 queries x 16, 32 or 48 dimensions of sums += P V; values of the next 16 dimensions lie `next`
// further on. Tiles 0 to 2 are sums of the upper 16 queries, 3 to 5 of the lower ones.
#define SUMS(move, block, upper, lower)                                                            \
    move(upper, sums + 16 * block, row);                                                           \
    move(lower, sums + ROWS * width + 16 * block, row)

OSL_INLINE void
value_tiles(const int columns, const float *scores, const osl_bf16 *values, int64_t next,
            int32_t keys, float *sums, int32_t width) {
    const int64_t row = width * 4;
    const float *lower = scores + ROWS * OSL_SCORE_STRIDE;
    SUMS(_tile_loadd, 0, 0, 3);
    if (columns > 1) {
        SUMS(_tile_loadd, 1, 1, 4);
    }
    if (columns > 2) {
        SUMS(_tile_loadd, 2, 2, 5);
    }
    for (int32_t k = 0; k < keys; k += 32, values += TILE) {
        _tile_loadd(6, scores + k / 2, SCORE_BYTES);
        _tile_loadd(7, values, 64);
        _tile_dpbf16ps(0, 6, 7);
        if (columns > 1) {
            _tile_loadd(7, values + next, 64);
            _tile_dpbf16ps(1, 6, 7);
        }
        if (columns > 2) {
            _tile_loadd(7, values + 2 * next, 64);
            _tile_dpbf16ps(2, 6, 7);
        }
        // The last tile of values first: it is still there.
        _tile_loadd(6, lower + k / 2, SCORE_BYTES);
        if (columns > 2) {
            _tile_dpbf16ps(5, 6, 7);
            _tile_loadd(7, values + next, 64);
        }
        if (columns > 1) {
            _tile_dpbf16ps(4, 6, 7);
            _tile_loadd(7, values, 64);
        }
        _tile_dpbf16ps(3, 6, 7);
    }
    SUMS(_tile_stored, 0, 0, 3);
    if (columns > 1) {
        SUMS(_tile_stored, 1, 1, 4);
    }
    if (columns > 2) {
        SUMS(_tile_stored, 2, 2, 5);
    }
}

static inline void add(const osl_heads *heads, const osl_head *head, int32_t k, int32_t keys,
                       const float *scores, float *sums) {
    const int32_t blocks = heads->value_dim / 16;
    const int64_t next = (int64_t)heads->keys * 16;
    OSL_WRITTEN();
    for (int32_t b = 0; b < blocks;) {
        const osl_bf16 *values = osl_values_at(heads, head, b, k);
        float *place = sums + 16 * b;
        // 4 is 2 + 2: a block of 16 alone would wait for itself.
        int32_t left = blocks - b, columns = left == 4 ? 2 : left < 3 ? left : 3;
        if (columns == 3)
            value_tiles(3, scores, values, next, keys, place, heads->value_dim);
        else if (columns == 2)
            value_tiles(2, scores, values, next, keys, place, heads->value_dim);
        else
            value_tiles(1, scores, values, next, keys, place, heads->value_dim);
        b += columns;
    }
}

static void attend(const osl_heads *heads, const osl_head *head, float *out, int64_t stride,
                   int32_t first, int32_t last, void *scratch) {
    OSL_WRITTEN();
    _tile_loadconfig(&tiles);
    osl_attend_bf16(heads, head, out, stride, first, last, scratch, OSL_QUERIES, score, add);
    _tile_release();
}

static osl_heads layout(int32_t positions, int32_t head_dim) {
    return osl_attention_bf16_layout(positions, head_dim, 32);
}

static const osl_attention table = {
    .name = "amx",
    .tile = OSL_STEPS * OSL_QUERIES,
    .step = OSL_QUERIES,
    .layout = layout,
    .pack = osl_attention_bf16_pack,
    .attend = attend,
};

const osl_attention *osl_attention_amx(void) {
    return osl_cpu_features()->amx ? &table : NULL;
}

OSL_AVX512_END

#else

#include "attention_encoder.h"

const osl_attention *osl_attention_amx(void) {
    return NULL;
}
#endif
