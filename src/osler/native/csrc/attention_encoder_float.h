// Attention of the encoder in float32, in plain C over vectors of VECTOR_BYTES. Included once for
// each target, which also says how many QUERIES fit in its registers.
//
// LAYOUTS, all float32
//   Q  [positions][d]
//   K  [blocks of 16 keys][d][16]: one line holds one dimension of 16 keys.
//   V  [blocks of 16 dimensions][keys][16]
// TILES: QUERIES x 16 keys for the scores, QUERIES x 16 dimensions for P V; 256 keys at a time, which
// a few tiles of queries go over in turn while a cache has them.
#ifndef OSL_ATTENTION_ENCODER_FLOAT_H
#define OSL_ATTENTION_ENCODER_FLOAT_H

#include <math.h>
#include <string.h>

#include "attention_encoder.h"
#include "common.h"

enum {
    LANES = 16,
    TILES = 8, // of queries that take turns
    KEYS = 256,
    WIDTH = VECTOR_BYTES / 4,
    VECTORS = LANES / WIDTH,
};

// What is known of a tile after some of the keys; behind it come its sums, [QUERIES][value_dim].
typedef struct {
    float max[QUERIES], sum[QUERIES];
} tile_state;

// Part of a line; may lie anywhere.
typedef float vector __attribute__((vector_size(VECTOR_BYTES), aligned(4)));

static size_t state_bytes(const osl_heads *heads) {
    size_t bytes = sizeof(tile_state) + QUERIES * (size_t)heads->value_dim * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

static osl_heads layout(int32_t positions, int32_t head_dim) {
    osl_heads heads = {.positions = positions,
                       .head_dim = head_dim,
                       .keys = osl_up_to(positions, LANES),
                       .dim = head_dim,
                       .value_dim = osl_up_to(head_dim, LANES)};
    heads.query_bytes = (size_t)heads.keys * (size_t)head_dim * sizeof(float);
    heads.key_bytes = heads.query_bytes;
    heads.value_bytes = (size_t)heads.keys * (size_t)heads.value_dim * sizeof(float);
    heads.scratch_bytes = QUERIES * KEYS * sizeof(float) + TILES * state_bytes(&heads);
    return heads;
}

// 16 dimensions of one position's values.
static inline float *value_line(const osl_heads *heads, const osl_head *head, int32_t dimension,
                                int32_t position) {
    size_t line = (size_t)(dimension / LANES) * (size_t)heads->keys + (size_t)position;
    return (float *)head->values + line * LANES;
}

static void pack(const osl_heads *heads, const osl_head *head, const float *q, const float *k,
                 const float *v, int64_t stride, int32_t first, int32_t last) {
    int32_t dim = heads->head_dim;
    float scale = 0x1.715476p0f / sqrtf((float)dim);
    for (int32_t p = first; p < last; p++, q += stride, k += stride, v += stride) {
        float *queries = (float *)head->queries + (size_t)p * (size_t)dim;
        float *keys = (float *)head->keys + (size_t)(p / LANES) * (size_t)dim * LANES + p % LANES;
        for (int32_t d = 0; d < dim; d++) {
            queries[d] = q[d] * scale;
            keys[d * LANES] = k[d];
        }
        for (int32_t d = 0; d < dim; d += LANES) {
            size_t count = (size_t)(dim - d < LANES ? dim - d : LANES);
            memcpy(value_line(heads, head, d, p), v + d, count * sizeof(float));
        }
    }
}

// 2^x for x <= 0, to 3e-6.
static inline float exp2_negative(float x) {
    const float round = 0x1.8p23f; // adding it leaves the nearest integer in the low bits
    float y = x < -126.0f ? -126.0f : x;
    float shifted = y + round;
    float f = y - (shifted - round);
    float p = 0x1.3997d6p-7f;
    p = p * f + 0x1.ca1442p-5f;
    p = p * f + 0x1.ec06dap-3f;
    p = p * f + 0x1.62e0dcp-1f;
    p = p * f + 0x1.ffffe8p-1f;
    return osl_float(osl_bits(p) + (osl_bits(shifted) << 23));
}

// QUERIES x 16 sums, a row every `stride`: the product of the rows of `left` and lines of 16, besides
// what was there if they are not to begin at 0.
static inline __attribute__((always_inline)) void
multiply_tile(const float *const left[QUERIES], const float *lines, int32_t count, float *sums,
              int32_t stride, const int begin) {
    vector sum[QUERIES][VECTORS];
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < VECTORS; j++)
            sum[i][j] = begin ? (vector){0} : *(const vector *)(sums + i * stride + j * WIDTH);
    for (int32_t c = 0; c < count; c++) {
        const float *line = lines + c * LANES;
#pragma GCC unroll 8
        for (int i = 0; i < QUERIES; i++)
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++)
                sum[i][j] += left[i][c] * *(const vector *)(line + j * WIDTH);
    }
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < VECTORS; j++)
            *(vector *)(sums + i * stride + j * WIDTH) = sum[i][j];
}

// Turns a row of scores into probabilities; `used` of `padded` are real. Returns what the sums so
// far are to be multiplied with.
static inline float soften(float *scores, int32_t used, int32_t padded, float *max, float *sum) {
    for (int32_t j = used; j < padded; j++)
        scores[j] = -0x1p30f;
    float top[LANES];
    memcpy(top, scores, sizeof top);
    for (int32_t j = LANES; j < padded; j += LANES)
        for (int l = 0; l < LANES; l++)
            top[l] = scores[j + l] > top[l] ? scores[j + l] : top[l];
    float highest = *max;
    for (int l = 0; l < LANES; l++)
        highest = top[l] > highest ? top[l] : highest;
    highest = ceilf(highest);
    for (int32_t j = 0; j < padded; j++)
        scores[j] = exp2_negative(scores[j] - highest);
    vector total = {0};
    for (int32_t j = 0; j < padded; j += WIDTH)
        total += *(const vector *)(scores + j);
    float scale = exp2f(*max - highest); // exact, since both are integers
    *max = highest;
    *sum *= scale;
    for (int l = 0; l < WIDTH; l++)
        *sum += total[l];
    return scale;
}

// One tile of queries by keys [k, k + KEYS).
static void attend_keys(const osl_heads *heads, const osl_head *head,
                        const float *const queries[QUERIES], int32_t k, float *scores,
                        tile_state *state) {
    int32_t dim = heads->head_dim, width = heads->value_dim;
    int32_t padded = heads->keys - k < KEYS ? heads->keys - k : KEYS;
    int32_t used = heads->positions - k < KEYS ? heads->positions - k : KEYS;
    const float *keys = (const float *)head->keys + (size_t)k * (size_t)dim;
    const float *probabilities[QUERIES];
    float *sums = (float *)(state + 1);
    for (int32_t j = 0; j < padded; j += LANES)
        multiply_tile(queries, keys + (size_t)j * (size_t)dim, dim, scores + j, KEYS, 1);
    for (int i = 0; i < QUERIES; i++) {
        float scale = soften(scores + i * KEYS, used, padded, &state->max[i], &state->sum[i]);
        for (int32_t d = 0; d < width; d++)
            sums[i * width + d] *= scale;
        probabilities[i] = scores + i * KEYS;
    }
    for (int32_t d = 0; d < width; d += LANES)
        multiply_tile(probabilities, value_line(heads, head, d, k), padded, sums + d, width, 0);
}

// Queries [first, last), no more than TILES tiles of them.
static void attend_some(const osl_heads *heads, const osl_head *head, float *out, int64_t stride,
                        int32_t first, int32_t last, void *scratch) {
    int32_t dim = heads->head_dim, tiles = (last - first + QUERIES - 1) / QUERIES;
    float *scores = scratch;
    uint8_t *states = (uint8_t *)(scores + QUERIES * KEYS);
    size_t bytes = state_bytes(heads);
    memset(states, 0, (size_t)tiles * bytes);
    for (int32_t t = 0; t < tiles; t++)
        for (int i = 0; i < QUERIES; i++)
            ((tile_state *)(states + (size_t)t * bytes))->max[i] = -0x1p29f;
    for (int32_t k = 0; k < heads->keys; k += KEYS)
        for (int32_t t = 0; t < tiles; t++) {
            const float *queries[QUERIES]; // beyond the last one, that again
            for (int32_t i = 0; i < QUERIES; i++) {
                int32_t row = first + t * QUERIES + i;
                row = row < last ? row : last - 1;
                queries[i] = (const float *)head->queries + (size_t)row * (size_t)dim;
            }
            attend_keys(heads, head, queries, k, scores, (tile_state *)(states + (size_t)t * bytes));
        }
    for (int32_t q = first; q < last; q++) {
        int32_t t = (q - first) / QUERIES, i = (q - first) % QUERIES;
        const tile_state *state = (const tile_state *)(states + (size_t)t * bytes);
        const float *sums = (const float *)(state + 1) + i * heads->value_dim;
        for (int32_t d = 0; d < dim; d++)
            out[q * stride + d] = sums[d] / state->sum[i];
    }
}

static void attend(const osl_heads *heads, const osl_head *head, float *out, int64_t stride,
                   int32_t first, int32_t last, void *scratch) {
    enum { MOST = TILES * QUERIES };
    for (; first < last; first += MOST)
        attend_some(heads, head, out, stride, first, last - first < MOST ? last : first + MOST,
                    scratch);
}

#endif
