// Bidirectional attention of the SigLIP towers: softmax(Q K^T / sqrt(d)) V for whole sequences,
// with an online softmax, so that the score matrix never leaves the caches.
//
// Written once for each kind of processor, like the linear layers. Each has its own layout for one
// head of one sequence, which `pack` fills a few positions at a time; the caller keeps the buffers
// and has zeroed them once, so that padding stays zero.
//
// Scores are kept as powers of two: queries are multiplied by log2(e) / sqrt(d) when packed. The
// number that they are taken relative to is an integer, so that changing it multiplies by an exact
// power of two: what is rounded does not depend on which one it is.
#ifndef OSL_ATTENTION_ENCODER_H
#define OSL_ATTENTION_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#include "common.h"

typedef struct {
    int32_t positions, head_dim;
    int32_t keys;      // positions, padded
    int32_t dim;       // head_dim as queries and keys are packed, padded
    int32_t value_dim; // head_dim as values are packed, padded
    size_t query_bytes, key_bytes, value_bytes; // one head of one sequence; multiples of 64
    size_t scratch_bytes;                       // one thread
} osl_heads;

// Where one head of one sequence is packed.
typedef struct {
    void *queries, *keys, *values;
} osl_head;

typedef struct {
    const char *name; // "portable", "avx2", "avx512", "amx"
    int32_t tile;     // queries that are best attended together, and the least that make sense:
    int32_t step;     // calls begin at a multiple of it

    // Sizes for sequences of `positions`; sets all of osl_heads.
    osl_heads (*layout)(int32_t positions, int32_t head_dim);

    // Packs positions [first, last) of q, k, v: float32, a position every `stride` values, the
    // first one at the pointers.
    void (*pack)(const osl_heads *heads, const osl_head *head, const float *q, const float *k,
                 const float *v, int64_t stride, int32_t first, int32_t last);

    // Attends queries [first, last) to all keys; out is float32 [positions][stride].
    void (*attend)(const osl_heads *heads, const osl_head *head, float *out, int64_t stride,
                   int32_t first, int32_t last, void *scratch);
} osl_attention;

// The best that this processor can run, no better than the chosen osl_kernels.
const osl_attention *osl_attention_chosen(void);

// One of the tables by name, or NULL where this processor or this build has it not.
OSL_API const osl_attention *osl_attention_named(const char *name);

// For osl_attention_named() only; NULL where the build has them not.
const osl_attention *osl_attention_avx2(void);
const osl_attention *osl_attention_avx512(void);
const osl_attention *osl_attention_amx(void);

static inline int32_t osl_up_to(int32_t count, int32_t unit) {
    return (count + unit - 1) / unit * unit;
}

#endif
