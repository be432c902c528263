// The encoder's way in: patches and token ids to hidden values.
#include "encoder_state.h"

// One row of a bf16 matrix.
static void copy_row(const osl_matrix *w, int32_t row, float *out) {
    int64_t units = osl_parts(w->cols, osl_column_unit(OSL_BF16));
    int64_t block_bytes = units * osl_column_unit(OSL_BF16) * OSL_ROW_BLOCK * 2;
    const uint8_t *pairs = w->data + row / OSL_ROW_BLOCK * block_bytes + row % OSL_ROW_BLOCK * 4;
    for (int32_t i = 0; i < w->cols; i++) {
        osl_bf16 value;
        memcpy(&value, pairs + (int64_t)(i / 2) * 64 + i % 2 * 2, sizeof value);
        out[i] = osl_bf16_to_float(value);
    }
}

typedef struct {
    osl_encoder *encoder;
    const float *pixels;
    const int64_t *ids;
    int32_t first; // token of the group that item 0 is
} embed_job;

// Unfolds a patch to a row of `wide`, in the order of a convolution's weight: channel, y, x. Its
// position's vector awaits the product in x.
static void unfold_work(void *context, int32_t thread, int32_t first, int32_t last) {
    embed_job *job = context;
    osl_encoder *e = job->encoder;
    const osl_encoder_model *m = &e->model;
    int64_t side = m->image_size, grid = m->image_size / m->patch_size, patch = m->patch_size;
    (void)thread;
    for (int32_t t = first; t < last; t++) {
        int32_t token = job->first + t, position = token % m->positions;
        const float *image =
            job->pixels + (int64_t)(token / m->positions) * m->num_channels * side * side;
        const float *corner = image + position / grid * patch * side + position % grid * patch;
        float *row = e->wide + (int64_t)t * m->embedding.w.cols;
        for (int64_t line = 0; line < m->num_channels * patch; line++) {
            const float *from = corner + line / patch * side * side + line % patch * side;
            memcpy(row + line * patch, from, (size_t)patch * sizeof(float));
        }
        copy_row(&m->position, position, e->x + (int64_t)token * m->hidden_size);
    }
}

void osl_encoder_embed_images(osl_encoder *e, const float *pixels, int32_t count) {
    const osl_encoder_model *m = &e->model;
    int32_t tokens = count * m->positions;
    for (int32_t t = 0; t < tokens; t += e->block) {
        int32_t block = tokens - t < e->block ? tokens - t : e->block;
        embed_job job = {.encoder = e, .pixels = pixels, .first = t};
        osl_pool_run(e->pool, block, osl_share(e, block), unfold_work, &job);
        osl_encoder_dense(e, &m->embedding, e->wide, m->embedding.w.cols, block, OSL_ADD,
                          e->x + (int64_t)t * m->hidden_size, m->hidden_size);
    }
}

static void token_work(void *context, int32_t thread, int32_t first, int32_t last) {
    embed_job *job = context;
    osl_encoder *e = job->encoder;
    const osl_encoder_model *m = &e->model;
    int64_t cols = m->hidden_size;
    float *position = e->normed + thread * cols; // room that is free as yet
    for (int32_t t = first; t < last; t++) {
        float *x = e->x + t * cols;
        copy_row(&m->embedding.w, (int32_t)job->ids[t], x);
        copy_row(&m->position, t % m->positions, position);
        for (int64_t i = 0; i < cols; i++)
            x[i] += position[i];
    }
}

void osl_encoder_embed_texts(osl_encoder *e, const int64_t *ids, int32_t count) {
    embed_job job = {.encoder = e, .ids = ids};
    int32_t tokens = count * e->model.positions;
    osl_pool_run(e->pool, tokens, osl_share(e, tokens), token_work, &job);
}
