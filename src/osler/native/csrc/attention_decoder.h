// Attention of a ragged batch over pages of keys and values, without a matrix of scores or a mask.
//
// Every query sees one run of positions [low, high): high ends at the query itself or at its image,
// low follows a window behind it on local layers. Queries that share a key-value head and follow
// one another are one block of rows; a block goes over its pages with the running softmax of
// FlashAttention (arXiv 2205.14135), four pages at a time.
//
// The running maximum is a whole power of two, so every rescaling is exact and the weights' bf16
// digits do not depend on where a block began: a position gets the same answer alone, in a batch,
// in one chunk or in many, up to the order of float32 sums.
#ifndef OSL_ATTENTION_DECODER_H
#define OSL_ATTENTION_DECODER_H

#include "kv.h"

enum {
    OSL_ROWS = 64,               // queries of a block
    OSL_FEW_ROWS = 16,           // up to so many, long contexts are split among threads
    OSL_STEP = 4,                // pages of one softmax step
    OSL_KEYS = OSL_STEP * OSL_PAGE,
    OSL_SPLIT = 16,              // pages of one part, at multiples of it
};

// Products of up to OSL_ROWS rows; arrays hold rows up to the next multiple of 16.
typedef struct {
    const char *name;
    // score[row][key] of one page; rows of q are dim apart, rows of score OSL_KEYS apart.
    void (*scores)(const osl_bf16 *q, int32_t rows, int32_t dim, const osl_pair *keys,
                   float *score);
    // acc[row][d] += weights of so many pages; rows are OSL_KEYS and dim apart.
    void (*weigh)(const osl_bf16 *weight, int32_t rows, int32_t dim, const osl_pair *const *values,
                  int32_t pages, float *acc);
    // int8 to bf16, without loss; pairs are a multiple of 64.
    void (*widen)(const int8_t *from, osl_pair *to, int32_t pairs);
} osl_paged_kernels;

// The last three where the build is for x86, and for a dim that is a multiple of 32, up to 256.
extern const osl_paged_kernels osl_paged_portable, osl_paged_avx2, osl_paged_avx512, osl_paged_amx;

// With AVX512_VBMI.
void osl_widen_vbmi(const int8_t *from, osl_pair *to, int32_t pairs);

// The best for so many rows on this processor.
const osl_paged_kernels *osl_paged_kernels_for(int32_t rows, int32_t dim);

// What has been summed of one query: weights are 2^(score - top), their sum is `total`.
typedef struct {
    int32_t top;
    float total;
} osl_softmax;

osl_softmax osl_softmax_start(void);

// Turns scores [from, to) of `keys` (a multiple of 64) in log2 units into weights, the others into
// 0, and returns the power of two by which what was summed before is to be multiplied. The scales
// are those of int8 pages, [keys], or NULL.
float osl_softmax_step(osl_softmax *sum, const float *score, int32_t keys, int32_t from, int32_t to,
                       const float *key_scale, const float *value_scale, osl_bf16 *weight);

// The queries of consecutive tokens over consecutive pages.
typedef struct {
    int32_t token, tokens;
    int32_t first, last;  // pages
    int32_t partial;      // its first row among the partial results, or -1: it is whole
    const int32_t *pages; // of the sequence, by position / OSL_PAGE
} osl_span;

// Partial results to add up: `parts` times tokens * groups rows.
typedef struct {
    int32_t token, tokens;
    int32_t partial, parts;
} osl_merge;

// What one kind of layer computes in a pass; the same for all layers of the kind.
typedef struct {
    osl_span *span;
    osl_merge *merge;
    int32_t spans, merges, partials;
    int32_t span_room, merge_room;
} osl_paged_plan;

// What is known of the new tokens of a pass.
typedef struct {
    const int32_t *position; // [tokens]
    const int32_t *high;     // [tokens] the end of what each sees
} osl_places;

static inline int32_t osl_low(int32_t position, int32_t window) {
    return window > 0 && position >= window ? position - window + 1 : 0;
}

// Adds tokens [token, token + tokens) of one sequence; window 0 is a global layer. 0 where memory
// lasts.
int osl_paged_add(osl_paged_plan *plan, const osl_places *places, int32_t token,
                      int32_t tokens, const int32_t *pages, int32_t window, int32_t groups);
void osl_paged_plan_free(osl_paged_plan *plan);

typedef struct {
    const osl_kv *kv;
    const osl_paged_plan *plan;
    osl_places places;
    int32_t layer, window;
    int32_t groups;     // queries a key-value head
    const osl_bf16 *q;  // [kv heads][plane]: rows token * groups + query, scaled to log2 units
    size_t plane;       // values; readable up to OSL_ROWS rows beyond the last
    float *out;         // [tokens][kv heads * groups * dim]
    float *partial;     // [kv heads][partials][dim + 2]
    uint8_t *scratch;   // osl_paged_scratch() bytes a thread
} osl_paged;

size_t osl_paged_scratch(const osl_kv *kv);
void osl_paged_run(osl_pool *pool, const osl_paged *attention);

#endif
