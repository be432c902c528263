// The encoder's way out: the final norm, and one of the heads.
#include <math.h>

#include "encoder_state.h"

enum { COLUMNS = 64 };

typedef struct {
    osl_encoder *encoder;
    float *out;
} finish_job;

static void norm_token(const osl_encoder *e, int64_t token, float *out) {
    const osl_encoder_model *m = &e->model;
    const float *x = e->x + token * m->hidden_size;
    osl_layer_norm(&m->norm, m->layer_norm_eps, m->hidden_size, x, out);
}

static void norm_work(void *context, int32_t thread, int32_t first, int32_t last) {
    finish_job *job = context;
    (void)thread;
    for (int64_t t = first; t < last; t++)
        norm_token(job->encoder, t, job->out + t * job->encoder->model.hidden_size);
}

static void norm_all(osl_encoder *e, int32_t count, float *out) {
    finish_job job = {e, out};
    int32_t tokens = count * e->model.positions;
    osl_pool_run(e->pool, tokens, osl_share(e, tokens), norm_work, &job);
}

// ------------------------------------------------------------------ MedGemma's soft tokens

OSL_CLONES
static void rms_norm(const float *weight, float eps, int32_t cols, float *x) {
    double squares = 0;
    for (int32_t i = 0; i < cols; i++)
        squares += (double)x[i] * (double)x[i];
    float scale = 1.0f / sqrtf((float)(squares / cols) + eps);
    for (int32_t i = 0; i < cols; i++)
        x[i] *= scale * (1.0f + weight[i]);
}

// Averages the normed patches of one square of the grid, an item, into a row of `attended`.
static void soft_work(void *context, int32_t thread, int32_t first, int32_t last) {
    osl_encoder *e = context;
    const osl_encoder_model *m = &e->model;
    int32_t cols = m->hidden_size, grid = m->image_size / m->patch_size, side = grid / m->pool;
    float *normed = e->normed + (int64_t)thread * cols;
    float share = 1.0f / (float)(m->pool * m->pool);
    for (int32_t i = first; i < last; i++) {
        int32_t image = i / (side * side), square = i % (side * side);
        int64_t corner = (int64_t)image * m->positions +
                         (int64_t)(square / side) * m->pool * grid + square % side * m->pool;
        float *soft = e->attended + (int64_t)i * cols;
        memset(soft, 0, (size_t)cols * sizeof(float));
        for (int32_t p = 0; p < m->pool * m->pool; p++) {
            norm_token(e, corner + p / m->pool * grid + p % m->pool, normed);
            for (int32_t c = 0; c < cols; c++)
                soft[c] += normed[c] * share;
        }
        rms_norm(m->soft_norm, m->layer_norm_eps, cols, soft);
    }
}

// ------------------------------------------------------------------ MedSigLIP's probe

// Scores of a normed token for all heads, to `wide` [head][token].
static void score_work(void *context, int32_t thread, int32_t first, int32_t last) {
    finish_job *job = context;
    osl_encoder *e = job->encoder;
    int32_t cols = e->model.hidden_size, heads = e->model.num_attention_heads;
    int64_t tokens = (int64_t)e->sequences * e->model.positions;
    (void)thread;
    for (int64_t t = first; t < last; t++)
        for (int32_t h = 0; h < heads; h++)
            e->wide[h * tokens + t] =
                osl_dot(e->model.probe_keys + (int64_t)h * cols, e->x + t * cols, cols);
}

// The softmax of one head of one sequence, an item.
static void soften_work(void *context, int32_t thread, int32_t first, int32_t last) {
    finish_job *job = context;
    osl_encoder *e = job->encoder;
    int32_t positions = e->model.positions, heads = e->model.num_attention_heads;
    int64_t tokens = (int64_t)e->sequences * positions;
    (void)thread;
    for (int32_t i = first; i < last; i++) {
        float *scores = e->wide + i % heads * tokens + (int64_t)(i / heads) * positions;
        float max = scores[0], sum = 0;
        for (int32_t p = 1; p < positions; p++)
            max = scores[p] > max ? scores[p] : max;
        for (int32_t p = 0; p < positions; p++)
            sum += scores[p] = osl_exp(scores[p] - max);
        for (int32_t p = 0; p < positions; p++)
            scores[p] /= sum;
    }
}

// Some columns of the tokens' mean, weighted for each head, to `attended` [sequence][head].
OSL_CLONES
static void mean_columns(const osl_encoder *e, int32_t sequence, int32_t first, int32_t count) {
    int32_t positions = e->model.positions, heads = e->model.num_attention_heads;
    int64_t cols = e->model.hidden_size, tokens = (int64_t)e->sequences * positions;
    for (int32_t h = 0; h < heads; h++) {
        const float *weights = e->wide + h * tokens + (int64_t)sequence * positions;
        const float *x = e->x + (int64_t)sequence * positions * cols + first;
        float sum[COLUMNS] = {0};
        for (int32_t p = 0; p < positions; p++)
            for (int32_t c = 0; c < count; c++)
                sum[c] += weights[p] * x[p * cols + c];
        float *mean = e->attended + ((int64_t)sequence * heads + h) * cols + first;
        memcpy(mean, sum, (size_t)count * sizeof(float));
    }
}

static void mean_work(void *context, int32_t thread, int32_t first, int32_t last) {
    finish_job *job = context;
    int32_t cols = job->encoder->model.hidden_size;
    int32_t pieces = (int32_t)osl_parts(cols, COLUMNS);
    (void)thread;
    for (int32_t i = first; i < last; i++) {
        int32_t column = i % pieces * COLUMNS;
        int32_t count = cols - column < COLUMNS ? cols - column : COLUMNS;
        mean_columns(job->encoder, i / pieces, column, count);
    }
}

static void probe(osl_encoder *e, int32_t count, float *out) {
    const osl_encoder_model *m = &e->model;
    int32_t cols = m->hidden_size, heads = m->num_attention_heads, head_dim = cols / heads;
    finish_job job = {e, out};
    norm_all(e, count, e->x);
    osl_pool_run(e->pool, count * m->positions, osl_share(e, count * m->positions), score_work,
                 &job);
    osl_pool_run(e->pool, count * heads, 1, soften_work, &job);
    osl_pool_run(e->pool, count * (int32_t)osl_parts(cols, COLUMNS), 1, mean_work, &job);
    // The values' matrix is applied to the means, of which each head keeps its own rows.
    for (int32_t i = 0; i < count * heads; i += e->block) {
        int32_t some = count * heads - i < e->block ? count * heads - i : e->block;
        osl_encoder_dense(e, &m->probe_values, e->attended + (int64_t)i * cols, cols, some,
                          OSL_STORE, e->wide, cols);
        for (int32_t j = 0; j < some; j++) {
            int32_t column = (i + j) % heads * head_dim;
            memcpy(e->normed + (int64_t)((i + j) / heads) * cols + column,
                   e->wide + (int64_t)j * cols + column, (size_t)head_dim * sizeof(float));
        }
    }
    osl_encoder_dense(e, &m->probe_out, e->normed, cols, count, OSL_STORE, out, cols);
    for (int32_t i = 0; i < count; i++)
        osl_layer_norm(&m->probe_norm, m->layer_norm_eps, cols, out + (int64_t)i * cols,
                       e->normed + (int64_t)i * cols);
    osl_encoder_dense(e, &m->probe_fc1, e->normed, cols, count, OSL_GELU, e->wide,
                      m->intermediate_size);
    osl_encoder_dense(e, &m->probe_fc2, e->wide, m->intermediate_size, count, OSL_ADD, out, cols);
}

// ------------------------------------------------------------------ all

void osl_encoder_finish(osl_encoder *e, int32_t count, float *out) {
    const osl_encoder_model *m = &e->model;
    int32_t cols = m->hidden_size, width = m->projection.w.rows;
    const float *rows = e->attended;
    int32_t tokens = count;
    switch (m->output) {
    case OSL_ALL_TOKENS:
        norm_all(e, count, out);
        return;
    case OSL_PROBE:
        probe(e, count, out);
        return;
    case OSL_SOFT_TOKENS:
        tokens = count * (m->positions / (m->pool * m->pool));
        osl_pool_run(e->pool, tokens, osl_share(e, tokens), soft_work, e);
        break;
    default:
        for (int32_t i = 0; i < count; i++)
            norm_token(e, (int64_t)(i + 1) * m->positions - 1, e->attended + (int64_t)i * cols);
    }
    for (int32_t t = 0; t < tokens; t += e->block) {
        int32_t block = tokens - t < e->block ? tokens - t : e->block;
        osl_encoder_dense(e, &m->projection, rows + (int64_t)t * cols, cols, block, OSL_STORE,
                          out + (int64_t)t * width, width);
    }
}
