// The layers of the encoder.
#include <math.h>

#include "encoder_state.h"

enum { LANES = 16 };

static float sum_of(const float *x, int32_t n, float minus, int squared) {
    float part[LANES] = {0}, sum = 0;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float v = x[i + l] - minus;
            part[l] += squared ? v * v : v;
        }
    for (; i < n; i++) {
        float v = x[i] - minus;
        sum += squared ? v * v : v;
    }
    for (int l = 0; l < LANES; l++)
        sum += part[l];
    return sum;
}

OSL_CLONES
void osl_layer_norm(const osl_norm *norm, float eps, int32_t cols, const float *x, float *out) {
    float mean = sum_of(x, cols, 0, 0) / (float)cols;
    float variance = sum_of(x, cols, mean, 1) / (float)cols;
    float scale = 1.0f / sqrtf(variance + eps);
    for (int32_t i = 0; i < cols; i++)
        out[i] = (x[i] - mean) * scale * norm->weight[i] + norm->bias[i];
}

OSL_CLONES
float osl_dot(const float *x, const float *y, int32_t n) {
    float part[LANES] = {0}, sum = 0;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            part[l] += x[i + l] * y[i + l];
    for (; i < n; i++)
        sum += x[i] * y[i];
    for (int l = 0; l < LANES; l++)
        sum += part[l];
    return sum;
}

typedef struct {
    osl_encoder *encoder;
    const osl_norm *norm;
    const float *x;
    osl_acts acts;
} norm_job;

static void norm_work(void *context, int32_t thread, int32_t first, int32_t last) {
    norm_job *job = context;
    osl_encoder *e = job->encoder;
    int32_t cols = e->model.hidden_size;
    (void)thread;
    for (int32_t t = first; t < last; t++) {
        const float *x = job->x + (int64_t)t * cols;
        osl_layer_norm(job->norm, e->model.layer_norm_eps, cols, x, e->normed + (int64_t)t * cols);
    }
    osl_acts_fill(&job->acts, e->normed, cols, first, last);
}

typedef struct {
    const osl_matrix *w;
    const osl_acts *acts;
    const osl_out *out;
} multiply_job;

static void multiply_work(void *context, int32_t thread, int32_t first, int32_t last) {
    multiply_job *job = context;
    (void)thread;
    osl_multiply(job->w, job->acts, job->out, first, last);
}

// wide = dense(norm(x)), for a block of tokens.
static void norm_dense(osl_encoder *e, const osl_norm *norm, const osl_dense *dense,
                       const float *x, int32_t tokens, int32_t kind) {
    norm_job job = {e, norm, x, osl_acts_place(&dense->w, tokens, e->acts)};
    osl_pool_run(e->pool, tokens, osl_share(e, tokens), norm_work, &job);
    osl_out out = {.kind = kind, .ldy = dense->w.rows, .y = e->wide, .bias = dense->bias};
    multiply_job multiply = {&dense->w, &job.acts, &out};
    int32_t blocks = (int32_t)osl_parts(dense->w.rows, OSL_ROW_BLOCK);
    int32_t share = osl_share(e, blocks);
    osl_pool_run(e->pool, blocks, share + share % 2, multiply_work, &multiply);
}

void osl_encoder_dense(osl_encoder *e, const osl_dense *dense, const float *x, int64_t ldx,
                       int32_t tokens, int32_t kind, float *y, int64_t ldy) {
    osl_out out = {.kind = kind, .ldy = ldy, .y = y, .bias = dense->bias};
    osl_linear(e->pool, &dense->w, x, ldx, tokens, &out, e->acts);
}

static osl_head head_of(const osl_encoder *e, int32_t sequence, int32_t head) {
    size_t place = (size_t)sequence * (size_t)e->model.num_attention_heads + (size_t)head;
    return (osl_head){.queries = e->queries + place * e->heads.query_bytes,
                      .keys = e->keys + place * e->heads.key_bytes,
                      .values = e->values + place * e->heads.value_bytes};
}

typedef struct {
    osl_encoder *encoder;
    int32_t first, tokens; // of this block
} pack_job;

enum { PACKED_AT_ONCE = 16 };

// Packs 16 tokens, an item, for all heads. They may belong to several sequences.
static void pack_work(void *context, int32_t thread, int32_t first, int32_t last) {
    pack_job *job = context;
    osl_encoder *e = job->encoder;
    int32_t heads = e->model.num_attention_heads, cols = e->model.hidden_size;
    int32_t end = last * PACKED_AT_ONCE < job->tokens ? last * PACKED_AT_ONCE : job->tokens;
    (void)thread;
    for (int32_t t = first * PACKED_AT_ONCE; t < end;) {
        int32_t sequence = (job->first + t) / e->heads.positions;
        int32_t position = (job->first + t) % e->heads.positions;
        int32_t count = e->heads.positions - position;
        count = end - t < count ? end - t : count;
        count = count < PACKED_AT_ONCE ? count : PACKED_AT_ONCE;
        for (int32_t h = 0; h < heads; h++) {
            osl_head head = head_of(e, sequence, h);
            const float *q = e->wide + (int64_t)t * 3 * cols + h * e->heads.head_dim;
            e->attention->pack(&e->heads, &head, q, q + cols, q + 2 * cols, 3 * cols, position,
                               position + count);
        }
        t += count;
    }
}

typedef struct {
    osl_encoder *encoder;
    int32_t tile;
} attend_job;

// Attends one tile of queries, an item, of one head of one sequence.
static void attend_work(void *context, int32_t thread, int32_t first, int32_t last) {
    attend_job *job = context;
    osl_encoder *e = job->encoder;
    int32_t heads = e->model.num_attention_heads, cols = e->model.hidden_size;
    int32_t positions = e->heads.positions, tile = job->tile;
    int32_t tiles = (int32_t)osl_parts(positions, tile);
    void *scratch = e->scratch + (size_t)thread * e->heads.scratch_bytes;
    for (int32_t i = first; i < last; i++) {
        int32_t sequence = i / tiles / heads, h = i / tiles % heads, q = i % tiles * tile;
        osl_head head = head_of(e, sequence, h);
        float *out = e->attended + (int64_t)sequence * positions * cols + h * e->heads.head_dim;
        e->attention->attend(&e->heads, &head, out, cols, q,
                             q + tile < positions ? q + tile : positions, scratch);
    }
}

static void attend(osl_encoder *e, int32_t count) {
    int32_t threads = osl_pool_threads(e->pool), positions = e->heads.positions;
    int32_t heads = count * e->model.num_attention_heads;
    attend_job job = {e, e->attention->tile};
    // Smaller tiles where there would not be several for each thread.
    while (job.tile / 2 >= e->attention->step &&
           heads * osl_parts(positions, job.tile) < 4 * threads)
        job.tile /= 2;
    int32_t tiles = (int32_t)osl_parts(positions, job.tile);
    osl_pool_run(e->pool, heads * tiles, 1, attend_work, &job);
}

void osl_encoder_layers(osl_encoder *e, int32_t count) {
    const osl_encoder_model *m = &e->model;
    int32_t tokens = count * m->positions, cols = m->hidden_size;
    for (int32_t i = 0; i < m->num_hidden_layers; i++) {
        const osl_encoder_layer *layer = &m->layers[i];
        for (int32_t t = 0; t < tokens; t += e->block) {
            int32_t block = tokens - t < e->block ? tokens - t : e->block;
            norm_dense(e, &layer->norm1, &layer->qkv, e->x + (int64_t)t * cols, block, OSL_STORE);
            pack_job job = {e, t, block};
            int32_t items = (int32_t)osl_parts(block, PACKED_AT_ONCE);
            osl_pool_run(e->pool, items, osl_share(e, items), pack_work, &job);
        }
        attend(e, count);
        for (int32_t t = 0; t < tokens; t += e->block) {
            int32_t block = tokens - t < e->block ? tokens - t : e->block;
            float *x = e->x + (int64_t)t * cols;
            osl_encoder_dense(e, &layer->out, e->attended + (int64_t)t * cols, cols, block,
                              OSL_ADD, x, cols);
            norm_dense(e, &layer->norm2, &layer->fc1, x, block, OSL_GELU);
            osl_encoder_dense(e, &layer->fc2, e->wide, m->intermediate_size, block, OSL_ADD, x,
                              cols);
        }
    }
}
