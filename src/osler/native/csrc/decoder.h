// The Gemma 3 decoder: one call takes a ragged batch through all layers.
//
// A call's chunks are new positions of so many sequences, prompts and single tokens mixed. All their
// tokens go through the linear layers together; attention (attention_decoder.h) keeps them apart.
// Between products everything is float32.
#ifndef OSL_DECODER_H
#define OSL_DECODER_H

#include "linear.h"

typedef struct {
    osl_matrix qkv;     // rows of the queries, then keys, then values
    osl_matrix out;     // of the attention
    osl_matrix gate_up; // as OSL_GEGLU wants it
    osl_matrix down;
    const float *input_norm, *post_attention_norm, *pre_feedforward_norm, *post_feedforward_norm;
    const float *query_norm, *key_norm;
    int32_t global; // 1: no window
} osl_decoder_layer;

typedef struct {
    int32_t hidden, layers, heads, kv_heads, head_dim;
    int32_t window;       // of local layers
    int32_t image_token;  // the id that stands for a soft token
    int32_t image_tokens; // soft tokens an image
    int32_t kv_format;    // OSL_BF16 or OSL_INT8
    float eps;
    float embedding_factor; // of token embeddings
    float score_factor;     // of query times key
    const float *local_frequency, *global_frequency; // of the rotary embedding, [head_dim / 2]
    const float *norm;
    osl_matrix embedding; // and head
    const osl_decoder_layer *layer;
} osl_decoder_model;

// New positions of one sequence; see osler/inference/runner.py.
typedef struct {
    int32_t start, count;
    int32_t pages;     // entries of each list
    int32_t logits;    // of the last so many positions
    int32_t soft_rows; // of `soft`
    const int32_t *ids, *global_pages, *local_pages;
    const float *soft; // [soft_rows][hidden]
} osl_chunk;

typedef enum {
    OSL_DONE = 0,
    OSL_NO_MEMORY = 1,
    OSL_BAD_CHUNK = 2, // no positions, or more logits than positions
    OSL_BAD_TOKEN = 3, // an id beyond the vocabulary
    OSL_BAD_PAGE = 4,  // a page that is needed is missing or beyond those allocated
    OSL_CUT_IMAGE = 5, // an image whose tokens do not all follow one another in the chunk
    OSL_BAD_SOFT = 6,  // other image tokens than embeddings
} osl_status;

typedef struct osl_decoder osl_decoder;

// The model is copied, what it points to is not; `pool` outlives the decoder. NULL where memory
// ends or the heads do not fit (an odd head_dim, or more than 64 queries a key).
OSL_API osl_decoder *osl_decoder_new(const osl_decoder_model *model, osl_pool *pool);
OSL_API void osl_decoder_free(osl_decoder *decoder);

OSL_API int64_t osl_decoder_page_bytes(const osl_decoder *decoder, int32_t global);

// Makes room for so many pages of zeros, in place of those there were; osl_status.
OSL_API int osl_decoder_allocate(osl_decoder *decoder, int32_t global_pages, int32_t local_pages);
OSL_API int osl_decoder_copy_page(osl_decoder *decoder, int32_t global, int32_t from, int32_t to);

// Reads the chunks; logits are [wanted positions, in order][vocabulary]. One call at a time;
// osl_status, and nothing has been written unless it is OSL_DONE.
OSL_API int osl_decoder_forward(osl_decoder *decoder, const osl_chunk *chunk, int32_t chunks,
                                float *logits);

#endif
