// The encoder as an object: its memory, and images or texts on their way through.
#include "encoder.h"

#include <stdbool.h>
#include <stdlib.h>

#include "encoder_state.h"

// Tokens that go through the layers together where one sequence has fewer, and tokens that go
// through a linear layer together: their converted activations stay in the second-level cache.
enum { GROUP = 1024, BLOCK = 256, ALIGN = 64 };

static bool fits(const osl_matrix *w, int32_t rows, int32_t cols) {
    return w->rows == rows && w->cols == cols && w->data;
}

static bool layer_fits(const osl_encoder_model *m, const osl_encoder_layer *layer) {
    int32_t hidden = m->hidden_size, wide = m->intermediate_size;
    return fits(&layer->qkv.w, 3 * hidden, hidden) && fits(&layer->out.w, hidden, hidden) &&
           fits(&layer->fc1.w, wide, hidden) && fits(&layer->fc2.w, hidden, wide);
}

static bool input_fits(const osl_encoder_model *m) {
    if (m->position.format != OSL_BF16 || !fits(&m->position, m->positions, m->hidden_size))
        return false;
    if (!m->image_size)
        return m->embedding.w.format == OSL_BF16 &&
               fits(&m->embedding.w, m->embedding.w.rows, m->hidden_size);
    if (m->patch_size <= 0 || m->image_size % m->patch_size)
        return false;
    int32_t grid = m->image_size / m->patch_size;
    return m->positions == grid * grid &&
           fits(&m->embedding.w, m->hidden_size, m->num_channels * m->patch_size * m->patch_size);
}

static bool output_fits(const osl_encoder_model *m) {
    int32_t hidden = m->hidden_size, wide = m->intermediate_size;
    switch (m->output) {
    case OSL_ALL_TOKENS:
        return true;
    case OSL_SOFT_TOKENS:
        return m->image_size && m->pool > 0 && m->image_size / m->patch_size % m->pool == 0 &&
               m->soft_norm && fits(&m->projection.w, m->projection.w.rows, hidden);
    case OSL_PROBE:
        return m->probe_keys && fits(&m->probe_values.w, hidden, hidden) &&
               fits(&m->probe_out.w, hidden, hidden) && fits(&m->probe_fc1.w, wide, hidden) &&
               fits(&m->probe_fc2.w, hidden, wide);
    default:
        return m->output == OSL_LAST_TOKEN &&
               fits(&m->projection.w, m->projection.w.rows, hidden);
    }
}

static bool model_fits(const osl_encoder_model *m) {
    if (m->hidden_size <= 0 || m->num_attention_heads <= 0 || m->positions <= 0 ||
        m->intermediate_size <= 0 || m->hidden_size % m->num_attention_heads)
        return false;
    for (int32_t i = 0; i < m->num_hidden_layers; i++)
        if (!layer_fits(m, &m->layers[i]))
            return false;
    return input_fits(m) && output_fits(m);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

// Bytes for any layer's converted activations; a matrix that the model has not has no data.
static size_t acts_bytes(const osl_encoder_model *m) {
    const osl_matrix *others[] = {&m->embedding.w,    &m->projection.w, &m->probe_values.w,
                                  &m->probe_out.w, &m->probe_fc1.w,  &m->probe_fc2.w};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i]->data)
            bytes = larger(bytes, osl_acts_bytes(others[i], BLOCK));
    for (int32_t i = 0; i < m->num_hidden_layers; i++) {
        const osl_encoder_layer *layer = &m->layers[i];
        const osl_dense *dense[] = {&layer->qkv, &layer->out, &layer->fc1, &layer->fc2};
        for (int d = 0; d < 4; d++)
            bytes = larger(bytes, osl_acts_bytes(&dense[d]->w, BLOCK));
    }
    return bytes;
}

// Lays out all memory behind `memory`, or only counts the bytes where that is NULL.
static size_t place(osl_encoder *e, uint8_t *memory) {
    const osl_encoder_model *m = &e->model;
    size_t threads = (size_t)osl_pool_threads(e->pool), heads = (size_t)m->num_attention_heads;
    size_t sequences = (size_t)e->sequences, positions = (size_t)m->positions;
    size_t row = (size_t)m->hidden_size * sizeof(float);
    // The probe needs room for a row a head, and for a score a token and head.
    size_t wide = larger(BLOCK * (size_t)e->wide_cols, sequences * positions * heads);
    size_t packed = sequences * heads;
    struct {
        void **place;
        size_t bytes;
    } parts[] = {
        {(void **)&e->x, sequences * positions * row},
        {(void **)&e->attended, sequences * larger(positions, heads) * row},
        {(void **)&e->normed, larger(BLOCK, threads) * row},
        {(void **)&e->wide, wide * sizeof(float)},
        {&e->acts, acts_bytes(m)},
        {(void **)&e->scratch, threads * e->heads.scratch_bytes},
        {(void **)&e->queries, packed * e->heads.query_bytes},
        {(void **)&e->keys, packed * e->heads.key_bytes},
        {(void **)&e->values, packed * e->heads.value_bytes},
    };
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (memory)
            *parts[i].place = memory + bytes;
        bytes += (parts[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    return bytes;
}

osl_encoder *osl_encoder_new(const osl_encoder_model *model, osl_pool *pool) {
    if (!model_fits(model))
        return NULL;
    osl_encoder *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->model = *model;
    e->pool = pool;
    e->attention = osl_attention_chosen();
    e->heads = e->attention->layout(model->positions,
                                    model->hidden_size / model->num_attention_heads);
    e->sequences = model->positions < GROUP ? GROUP / model->positions : 1;
    e->sequences = e->sequences < BLOCK ? e->sequences : BLOCK;
    e->block = BLOCK;
    int32_t unfolded = model->image_size ? model->embedding.w.cols : 0;
    e->wide_cols = (int64_t)larger(larger((size_t)model->intermediate_size, (size_t)unfolded),
                                   3 * (size_t)model->hidden_size);
    e->bytes = place(e, NULL);
    // Zeros: packing leaves the padding alone.
    e->memory = osl_room_new(e->bytes);
    if (!e->memory.data) {
        free(e);
        return NULL;
    }
    place(e, e->memory.data);
    return e;
}

void osl_encoder_free(osl_encoder *encoder) {
    if (encoder)
        osl_room_free(&encoder->memory);
    free(encoder);
}

size_t osl_encoder_bytes(const osl_encoder *encoder) {
    return sizeof *encoder + encoder->bytes;
}

int64_t osl_encoder_width(const osl_encoder *encoder) {
    const osl_encoder_model *m = &encoder->model;
    int64_t side = m->output == OSL_SOFT_TOKENS ? m->image_size / m->patch_size / m->pool : 1;
    switch (m->output) {
    case OSL_ALL_TOKENS:
        return (int64_t)m->positions * m->hidden_size;
    case OSL_PROBE:
        return m->hidden_size;
    default:
        return side * side * m->projection.w.rows;
    }
}

int osl_encoder_images(osl_encoder *e, const float *pixels, int64_t count, float *out) {
    const osl_encoder_model *m = &e->model;
    int64_t image = (int64_t)m->num_channels * m->image_size * m->image_size;
    for (int64_t i = 0; i < count; i += e->sequences) {
        int32_t some = (int32_t)(count - i < e->sequences ? count - i : e->sequences);
        osl_encoder_embed_images(e, pixels + i * image, some);
        osl_encoder_layers(e, some);
        osl_encoder_finish(e, some, out + i * osl_encoder_width(e));
    }
    return 0;
}

int osl_encoder_texts(osl_encoder *e, const int64_t *ids, int64_t count, float *out) {
    const osl_encoder_model *m = &e->model;
    for (int64_t i = 0; i < count * m->positions; i++)
        if (ids[i] < 0 || ids[i] >= m->embedding.w.rows)
            return 1;
    for (int64_t i = 0; i < count; i += e->sequences) {
        int32_t some = (int32_t)(count - i < e->sequences ? count - i : e->sequences);
        osl_encoder_embed_texts(e, ids + i * m->positions, some);
        osl_encoder_layers(e, some);
        osl_encoder_finish(e, some, out + i * osl_encoder_width(e));
    }
    return 0;
}
