// The SigLIP transformers: vision tower (as MedGemma and MedSigLIP use it) and text tower, one call
// for any number of images or texts.
//
// All activations are float32 [tokens][hidden_size] between the layers; what a layer multiplies is
// converted as linear.h says, and attention works as attention_encoder.h says. Tokens of several
// images or texts stand one after the other, so that small ones fill the linear layers too.
#ifndef OSL_ENCODER_H
#define OSL_ENCODER_H

#include "linear.h"

// Matrices are [outputs][inputs]; biases are one a row.
typedef struct {
    osl_matrix w;
    const float *bias; // or NULL
} osl_dense;

typedef struct {
    const float *weight, *bias; // [hidden_size]
} osl_norm;

typedef struct {
    osl_norm norm1, norm2;
    osl_dense qkv; // rows of the queries, then of the keys, then of the values
    osl_dense out, fc1, fc2;
} osl_encoder_layer;

typedef enum {
    OSL_ALL_TOKENS = 0,  // [positions][hidden_size]
    OSL_SOFT_TOKENS = 1, // the grid's averages, normed and projected: [(grid / pool)^2][rows]
    OSL_PROBE = 2,       // one learned query over all tokens: [hidden_size]
    OSL_LAST_TOKEN = 3,  // the last token, projected: [rows]
} osl_encoder_output;

typedef struct {
    int32_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads;
    int32_t positions; // patches of an image or tokens of a text
    float layer_norm_eps;
    const osl_encoder_layer *layers;
    osl_norm norm; // after the last layer

    // Images, [num_channels][image_size][image_size]: `embedding` has one row a hidden value and
    // num_channels x patch_size x patch_size columns. Texts (image_size 0): it has one row a token.
    int32_t image_size, patch_size, num_channels;
    osl_dense embedding;
    osl_matrix position; // one row a position; bf16, as are texts' embeddings

    int32_t output;          // osl_encoder_output
    int32_t pool;            // OSL_SOFT_TOKENS: the side of what is averaged
    const float *soft_norm;  // OSL_SOFT_TOKENS: the weight of an RMSNorm, to which 1 is added
    osl_dense projection;    // OSL_SOFT_TOKENS, OSL_LAST_TOKEN
    // OSL_PROBE. What the query makes of the keys' matrix is a constant, [num_attention_heads]
    // [hidden_size], the factor 1 / sqrt(head size) included; the keys' bias cancels out.
    const float *probe_keys;
    osl_dense probe_values, probe_out, probe_fc1, probe_fc2;
    osl_norm probe_norm;
} osl_encoder_model;

typedef struct osl_encoder osl_encoder;

// Takes all the memory that it will need. The model's weights must outlive it. NULL where memory
// cannot be had or the sizes contradict each other.
OSL_API osl_encoder *osl_encoder_new(const osl_encoder_model *model, osl_pool *pool);
OSL_API void osl_encoder_free(osl_encoder *encoder);

// Bytes that it took.
OSL_API size_t osl_encoder_bytes(const osl_encoder *encoder);

// Values of the output for one image or text.
OSL_API int64_t osl_encoder_width(const osl_encoder *encoder);

// Encodes `count` images or texts, whichever the model takes; out is float32 [count][width].
// Returns 1, with nothing encoded, where an id is not in the vocabulary. One call at a time.
OSL_API int osl_encoder_images(osl_encoder *encoder, const float *pixels, int64_t count,
                               float *out);
OSL_API int osl_encoder_texts(osl_encoder *encoder, const int64_t *ids, int64_t count, float *out);

#endif
