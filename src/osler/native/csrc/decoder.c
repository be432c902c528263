#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "decoder_ops.h"
#include "decoder_plan.h"

enum {
    LINE = 64,
    FEW_TOKENS = 4,      // so many norms cost less than waking a thread
    FEW_HEADS = 8,       // the same for heads to be normed, turned and stored
};

// 1 / ln 2: scores are powers of two.
static const float LOG2_E = 0x1.715476p0f;

struct osl_decoder {
    osl_decoder_model model;
    osl_decoder_layer *layer; // the model's
    int32_t *place;           // of each layer among those of its kind
    osl_pool *pool;
    osl_kv kv[2];             // OSL_LOCAL, OSL_GLOBAL
    osl_plan plan;

    // Of the pass; all grow to the largest pass there was.
    int32_t token_room;
    osl_room memory;
    float *x;        // [tokens][hidden] the residual stream
    float *normed;   // [tokens][hidden or heads * head_dim] into the next product
    float *wide;     // [tokens][queries, keys and values, or the activated gate]
    float *added;    // [tokens][hidden] what is added to x
    float *angle;    // [tokens][local cosines, sines, global cosines, sines]
    osl_bf16 *query; // [kv_heads][plane], plane: (tokens + OSL_ROWS) * groups * head_dim
    void *acts;
    float *partial;
    size_t partial_room;
    uint8_t *scratch; // of attention, a part for each thread
};

// ---------------------------------------------------------------- room

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static size_t lines(size_t bytes) {
    return (bytes + LINE - 1) / LINE * LINE;
}

static int32_t groups(const osl_decoder *d) {
    return d->model.heads / d->model.kv_heads;
}

// Values of one token's queries, or of its attention's result.
static size_t query_width(const osl_decoder *d) {
    return (size_t)d->model.heads * (size_t)d->model.head_dim;
}

static size_t wide_width(const osl_decoder *d) {
    size_t width = 0;
    for (int32_t i = 0; i < d->model.layers; i++) {
        width = larger(width, (size_t)d->layer[i].qkv.rows);
        width = larger(width, (size_t)d->layer[i].gate_up.rows / 2);
    }
    return width;
}

static size_t query_plane(const osl_decoder *d, int32_t tokens) {
    return ((size_t)tokens * (size_t)groups(d) + OSL_ROWS) * (size_t)d->model.head_dim;
}

static size_t acts_bytes(const osl_decoder *d, int32_t tokens) {
    size_t bytes = osl_acts_bytes(&d->model.embedding, tokens);
    for (int32_t i = 0; i < d->model.layers; i++) {
        const osl_decoder_layer *l = &d->layer[i];
        const osl_matrix *w[] = {&l->qkv, &l->out, &l->gate_up, &l->down};
        for (int j = 0; j < 4; j++)
            bytes = larger(bytes, osl_acts_bytes(w[j], tokens));
    }
    return bytes;
}

// The next part of a room, or only its size while there is none.
static void *part(uint8_t *memory, size_t *used, size_t bytes) {
    void *place = memory ? memory + *used : NULL;
    *used += lines(bytes);
    return place;
}

static size_t lay_out(osl_decoder *d, uint8_t *memory, int32_t tokens) {
    size_t used = 0, n = (size_t)tokens, hidden = (size_t)d->model.hidden;
    d->x = part(memory, &used, n * hidden * sizeof(float));
    d->normed = part(memory, &used, n * larger(hidden, query_width(d)) * sizeof(float));
    d->wide = part(memory, &used, n * wide_width(d) * sizeof(float));
    d->added = part(memory, &used, n * hidden * sizeof(float));
    d->angle = part(memory, &used, n * 2 * (size_t)d->model.head_dim * sizeof(float));
    d->query = part(memory, &used,
                    (size_t)d->model.kv_heads * query_plane(d, tokens) * sizeof(osl_bf16));
    d->acts = part(memory, &used, acts_bytes(d, tokens));
    return used;
}

static int reserve(osl_decoder *d, int32_t tokens) {
    if (tokens > d->token_room) {
        size_t bytes = lay_out(d, NULL, tokens);
        osl_room_free(&d->memory);
        d->token_room = 0;
        // Zeros: rows beyond the last are read, though nothing is made of them.
        d->memory = osl_room_new(bytes);
        if (!d->memory.data)
            return OSL_NO_MEMORY;
        lay_out(d, d->memory.data, tokens);
        d->token_room = tokens;
    }
    int32_t rows = d->plan.last.partials;
    for (int kind = 0; kind < 2; kind++)
        rows = d->plan.paged[kind].partials > rows ? d->plan.paged[kind].partials : rows;
    size_t partials = (size_t)rows * (size_t)d->model.kv_heads * (size_t)(d->model.head_dim + 2);
    if (partials > d->partial_room) {
        free(d->partial);
        d->partial = malloc(partials * sizeof *d->partial);
        d->partial_room = d->partial ? partials : 0;
        if (!d->partial)
            return OSL_NO_MEMORY;
    }
    return OSL_DONE;
}

// ---------------------------------------------------------------- the object

static int fits(const osl_decoder_model *m) {
    return m->layers > 0 && m->kv_heads > 0 && m->heads % m->kv_heads == 0 &&
           m->heads / m->kv_heads <= OSL_ROWS && m->head_dim > 0 && m->head_dim % 2 == 0 &&
           m->window > 0 && m->image_tokens > 0;
}

osl_decoder *osl_decoder_new(const osl_decoder_model *model, osl_pool *pool) {
    osl_decoder *d = fits(model) ? calloc(1, sizeof *d) : NULL;
    if (!d)
        return NULL;
    size_t layers = (size_t)model->layers;
    d->model = *model;
    d->pool = pool;
    d->layer = malloc(layers * sizeof *d->layer);
    d->place = malloc(layers * sizeof *d->place);
    if (!d->layer || !d->place) {
        osl_decoder_free(d);
        return NULL;
    }
    memcpy(d->layer, model->layer, layers * sizeof *d->layer);
    d->model.layer = d->layer;
    int32_t of_kind[2] = {0, 0};
    for (size_t i = 0; i < layers; i++)
        d->place[i] = of_kind[d->layer[i].global ? OSL_GLOBAL : OSL_LOCAL]++;
    for (int kind = 0; kind < 2; kind++)
        d->kv[kind] =
            osl_kv_sized(model->kv_format, of_kind[kind], model->kv_heads, model->head_dim);
    size_t bytes = osl_paged_scratch(&d->kv[0]) * (size_t)osl_pool_threads(pool);
    d->scratch = aligned_alloc(LINE, bytes);
    if (!d->scratch) {
        osl_decoder_free(d);
        return NULL;
    }
    memset(d->scratch, 0, bytes);
    return d;
}

void osl_decoder_free(osl_decoder *d) {
    if (!d)
        return;
    osl_kv_free(&d->kv[OSL_LOCAL]);
    osl_kv_free(&d->kv[OSL_GLOBAL]);
    osl_plan_free(&d->plan);
    free(d->layer);
    free(d->place);
    osl_room_free(&d->memory);
    free(d->partial);
    free(d->scratch);
    free(d);
}

int64_t osl_decoder_page_bytes(const osl_decoder *d, int32_t global) {
    return (int64_t)d->kv[global ? OSL_GLOBAL : OSL_LOCAL].page_bytes;
}

int osl_decoder_allocate(osl_decoder *d, int32_t global_pages, int32_t local_pages) {
    int failed = osl_kv_allocate(&d->kv[OSL_GLOBAL], global_pages) ||
                 osl_kv_allocate(&d->kv[OSL_LOCAL], local_pages);
    return failed ? OSL_NO_MEMORY : OSL_DONE;
}

int osl_decoder_copy_page(osl_decoder *d, int32_t global, int32_t from, int32_t to) {
    osl_kv *kv = &d->kv[global ? OSL_GLOBAL : OSL_LOCAL];
    if (from < 0 || from >= kv->pages || to < 0 || to >= kv->pages)
        return OSL_BAD_PAGE;
    if (from != to && kv->page_bytes > 0)
        memcpy(osl_kv_block(kv, to, 0, 0), osl_kv_block(kv, from, 0, 0), kv->page_bytes);
    return OSL_DONE;
}

// ---------------------------------------------------------------- a pass

static void linear(osl_decoder *d, const osl_matrix *w, const float *x, int32_t tokens, int kind,
                   float *y) {
    int64_t width = kind == OSL_GEGLU ? w->rows / 2 : w->rows;
    osl_out out = {.kind = kind, .ldy = width, .y = y};
    osl_linear(d->pool, w, x, w->cols, tokens, &out, d->acts);
}

// Items that cost about as much as a token's norm.
static void for_each(osl_decoder *d, int32_t items, int32_t few, osl_work *work, void *context) {
    int32_t chunk = items / (4 * osl_pool_threads(d->pool)) + 1;
    osl_pool_run(d->pool, items, chunk > few ? chunk : few, work, context);
}

// What a piece of work is told.
typedef struct {
    osl_decoder *d;
    const osl_decoder_layer *layer;
    int32_t index;
    const float *added_norm, *norm;
} stage;

static void embed(void *context, int32_t thread, int32_t first, int32_t last) {
    osl_decoder *d = ((stage *)context)->d;
    const osl_decoder_model *m = &d->model;
    (void)thread;
    size_t hidden = (size_t)m->hidden, half = (size_t)m->head_dim / 2;
    for (int32_t token = first; token < last; token++) {
        float *x = d->x + (size_t)token * hidden, *angle = d->angle + (size_t)token * 4 * half;
        int32_t position = d->plan.position[token];
        if (d->plan.soft[token])
            memcpy(x, d->plan.soft[token], hidden * sizeof *x);
        else
            osl_matrix_row(&m->embedding, d->plan.id[token], m->embedding_factor, x);
        osl_rotary_angles(position, m->local_frequency, m->head_dim, angle, angle + half);
        osl_rotary_angles(position, m->global_frequency, m->head_dim, angle + 2 * half,
                          angle + 3 * half);
    }
}

// x += added, normed, where there is something to add; then normed = x, normed.
static void norm_tokens(void *context, int32_t thread, int32_t first, int32_t last) {
    const stage *s = context;
    osl_decoder *d = s->d;
    (void)thread;
    int32_t hidden = d->model.hidden;
    float eps = d->model.eps;
    for (int32_t token = first; token < last; token++) {
        size_t at = (size_t)token * (size_t)hidden;
        if (s->added_norm)
            osl_add_rms_norm(d->x + at, d->added + at, s->added_norm, eps, hidden);
        osl_rms_norm(d->x + at, s->norm, eps, hidden, d->normed + at);
    }
}

// One token's queries, key and value of one key-value head: normed, turned, put where attention
// reads them.
static void store_token(const stage *s, int32_t token, int32_t head, uint8_t *block, int32_t slot) {
    osl_decoder *d = s->d;
    const osl_decoder_model *m = &d->model;
    int32_t dim = m->head_dim, of_head = groups(d);
    const float *cosine = d->angle + (size_t)token * 2 * (size_t)dim + (s->layer->global ? dim : 0);
    const float *sine = cosine + dim / 2;
    float *qkv = d->wide + (size_t)token * (size_t)s->layer->qkv.rows;
    float *query = qkv + head * of_head * dim;
    float *key = qkv + (m->heads + head) * dim;
    const float *value = qkv + (m->heads + m->kv_heads + head) * dim;
    osl_bf16 *to = d->query + (size_t)head * query_plane(d, d->token_room) +
                   (size_t)token * (size_t)(of_head * dim);
    for (int32_t i = 0; i < of_head; i++)
        osl_norm_and_rotate(query + i * dim, s->layer->query_norm, m->eps, dim, cosine, sine);
    osl_to_bf16(query, m->score_factor * LOG2_E, of_head * dim, to);
    osl_norm_and_rotate(key, s->layer->key_norm, m->eps, dim, cosine, sine);
    osl_kv_put(&d->kv[s->layer->global ? OSL_GLOBAL : OSL_LOCAL], block, slot, key, value);
}

// An item is one head of the tokens that share a page, so no two threads write the same line.
static void store(void *context, int32_t thread, int32_t first, int32_t last) {
    const stage *s = context;
    osl_decoder *d = s->d;
    (void)thread;
    int kind = s->layer->global ? OSL_GLOBAL : OSL_LOCAL;
    for (int32_t item = first; item < last; item++) {
        const osl_run *run = &d->plan.run[item / d->model.kv_heads];
        int32_t head = item % d->model.kv_heads;
        uint8_t *block = osl_kv_block(&d->kv[kind], run->page[kind], d->place[s->index], head);
        if (run->slot == 0)
            osl_kv_clear(&d->kv[kind], block);
        for (int32_t i = 0; i < run->tokens; i++)
            store_token(s, run->token + i, head, block, run->slot + i);
    }
}

static void attend(osl_decoder *d, const stage *s, const osl_paged_plan *plan) {
    int kind = s->layer->global ? OSL_GLOBAL : OSL_LOCAL;
    osl_paged paged = {
        .kv = &d->kv[kind],
        .plan = plan,
        .places = {d->plan.position, d->plan.high},
        .layer = d->place[s->index],
        .window = kind == OSL_LOCAL ? d->model.window : 0,
        .groups = groups(d),
        .q = d->query,
        .plane = query_plane(d, d->token_room),
        .out = d->normed,
        .partial = d->partial,
        .scratch = d->scratch,
    };
    osl_paged_run(d->pool, &paged);
}

// Keeps the tokens whose logits are wanted: nothing reads the others after the last layer's keys.
static void keep_wanted(osl_decoder *d) {
    size_t hidden = (size_t)d->model.hidden, queries = query_width(d);
    for (int32_t i = 0; i < d->plan.wanted; i++) { // a token never moves to a later place
        size_t from = (size_t)d->plan.want[i], to = (size_t)i;
        memmove(d->x + to * hidden, d->x + from * hidden, hidden * sizeof *d->x);
        memmove(d->normed + to * queries, d->normed + from * queries, queries * sizeof *d->x);
    }
}

static void run_norm(osl_decoder *d, int32_t tokens, const float *added_norm, const float *norm) {
    stage s = {.d = d, .added_norm = added_norm, .norm = norm};
    for_each(d, tokens, FEW_TOKENS, norm_tokens, &s);
}

// One layer, from the normed input to the normed input of what follows; returns how many tokens
// are left.
static int32_t run_layer(osl_decoder *d, int32_t index) {
    const osl_decoder_layer *l = &d->layer[index];
    int32_t tokens = d->plan.tokens, is_last = index == d->model.layers - 1;
    stage s = {.d = d, .layer = l, .index = index};
    linear(d, &l->qkv, d->normed, tokens, OSL_STORE, d->wide);
    for_each(d, d->plan.runs * d->model.kv_heads, FEW_HEADS, store, &s);
    attend(d, &s, is_last ? &d->plan.last : &d->plan.paged[l->global ? OSL_GLOBAL : OSL_LOCAL]);
    if (is_last) {
        keep_wanted(d);
        tokens = d->plan.wanted;
    }
    if (tokens == 0)
        return 0;
    linear(d, &l->out, d->normed, tokens, OSL_STORE, d->added);
    run_norm(d, tokens, l->post_attention_norm, l->pre_feedforward_norm);
    linear(d, &l->gate_up, d->normed, tokens, OSL_GEGLU, d->wide);
    // Where the gate's rows were padded, its columns beyond the model's are not read.
    osl_out out = {.kind = OSL_STORE, .ldy = l->down.rows, .y = d->added};
    osl_linear(d->pool, &l->down, d->wide, l->gate_up.rows / 2, tokens, &out, d->acts);
    run_norm(d, tokens, l->post_feedforward_norm, is_last ? d->model.norm : l[1].input_norm);
    return tokens;
}

int osl_decoder_forward(osl_decoder *d, const osl_chunk *chunk, int32_t chunks, float *logits) {
    const int32_t pages[] = {d->kv[OSL_LOCAL].pages, d->kv[OSL_GLOBAL].pages};
    int status = osl_plan_make(&d->plan, &d->model, chunk, chunks, pages);
    if (!status)
        status = reserve(d, d->plan.tokens);
    if (status || d->plan.tokens == 0)
        return status;
    stage s = {.d = d};
    for_each(d, d->plan.tokens, FEW_TOKENS, embed, &s);
    run_norm(d, d->plan.tokens, NULL, d->layer[0].input_norm);
    int32_t left = 0;
    for (int32_t i = 0; i < d->model.layers; i++)
        left = run_layer(d, i);
    if (left > 0)
        linear(d, &d->model.embedding, d->normed, left, OSL_STORE, logits);
    return OSL_DONE;
}
