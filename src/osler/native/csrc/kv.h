// Keys and values in pages of 64 positions.
//
// A page holds one block for each layer of its kind and each key-value head, laid out for products
// of bf16 pairs, so that no attention kernel has to move anything:
//
//   keys    [dim / 2][64 positions][2]   a line holds one pair of dimensions of 16 keys
//   values  [32][dim][2 positions]       a line holds 16 dimensions of one pair of keys
//
// as bf16, or as int8 with one float32 scale a position, [64] for the keys and [64] for the values
// behind them. An int8 is a bf16 without loss, so kernels know only one kind.
#ifndef OSL_KV_H
#define OSL_KV_H

#include <stddef.h>
#include <stdint.h>

#include "linear.h"
#include "room.h"

enum { OSL_PAGE = 64 };

// Two bf16 side by side, the first in the low half.
typedef uint32_t __attribute__((may_alias)) osl_pair;

typedef struct {
    int32_t format; // OSL_BF16 or OSL_INT8
    int32_t layers, heads, dim;
    int32_t pages;
    size_t block_bytes, page_bytes;
    osl_room room;
} osl_kv;

// Sets the sizes; there is no page yet.
osl_kv osl_kv_sized(int32_t format, int32_t layers, int32_t heads, int32_t dim);

// Makes room for so many pages of zeros, in place of those there were. 0 where memory lasts.
int osl_kv_allocate(osl_kv *kv, int32_t pages);
void osl_kv_free(osl_kv *kv);

// One layer's block for one head.
uint8_t *osl_kv_block(const osl_kv *kv, int32_t page, int32_t layer, int32_t head);

// Forgets the values of a block, so that nothing of its last owner, not even a NaN, is multiplied
// by the zero weight of a position that is not there yet.
void osl_kv_clear(const osl_kv *kv, uint8_t *block);

// Stores one position; `slot` is its place in the page.
void osl_kv_put(const osl_kv *kv, uint8_t *block, int32_t slot, const float *key,
                const float *value);

// Where a block's keys and values begin.
const void *osl_kv_keys(const osl_kv *kv, const uint8_t *block);
const void *osl_kv_values(const osl_kv *kv, const uint8_t *block);

// The scales of a block's positions, or NULL for bf16.
const float *osl_kv_key_scale(const osl_kv *kv, const uint8_t *block);
const float *osl_kv_value_scale(const osl_kv *kv, const uint8_t *block);

#endif
