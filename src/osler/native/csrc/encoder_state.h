// What the parts of the encoder share.
#ifndef OSL_ENCODER_STATE_H
#define OSL_ENCODER_STATE_H

#include "attention_encoder.h"
#include "encoder.h"
#include "room.h"

struct osl_encoder {
    osl_encoder_model model;
    osl_pool *pool;
    const osl_attention *attention;
    osl_heads heads;
    int32_t sequences; // images or texts that go through the layers together
    int32_t block;     // tokens that go through a linear layer together
    int64_t wide_cols; // of `wide`
    size_t bytes;
    osl_room memory;
    float *x;        // [sequences * positions][hidden_size], between the layers
    float *attended; // the same, between attention and its output layer
    float *normed;   // [block][hidden_size]
    float *wide;     // [block][wide_cols], what the widest layers give
    void *acts;      // one block, converted for the layer at hand
    uint8_t *queries, *keys, *values; // [sequences][num_attention_heads], packed
    uint8_t *scratch;                 // [threads], of attention
};

// Images [count], at most `sequences` of them, to x.
void osl_encoder_embed_images(osl_encoder *encoder, const float *pixels, int32_t count);
void osl_encoder_embed_texts(osl_encoder *encoder, const int64_t *ids, int32_t count);

// All layers over `count` sequences in x.
void osl_encoder_layers(osl_encoder *encoder, int32_t count);

// x to what the model gives.
void osl_encoder_finish(osl_encoder *encoder, int32_t count, float *out);

// out = norm(x) for one token; they may be the same.
void osl_layer_norm(const osl_norm *norm, float eps, int32_t cols, const float *x, float *out);

float osl_dot(const float *x, const float *y, int32_t n);

// y = dense(x), or y += dense(x), and the like; at most a block of tokens.
void osl_encoder_dense(osl_encoder *encoder, const osl_dense *dense, const float *x, int64_t ldx,
                       int32_t tokens, int32_t kind, float *y, int64_t ldy);

static inline int64_t osl_parts(int64_t whole, int64_t part) {
    return (whole + part - 1) / part;
}

// So many items for each chunk that every thread gets several.
static inline int32_t osl_share(const osl_encoder *encoder, int32_t count) {
    return (int32_t)osl_parts(count, 4 * osl_pool_threads(encoder->pool));
}

#endif
