#include "attention_decoder.h"

#include <stdlib.h>
#include <string.h>

#include "common.h"

typedef struct {
    float score[OSL_ROWS][OSL_KEYS];
    osl_bf16 weight[OSL_ROWS][OSL_KEYS];
    float key_scale[OSL_KEYS], value_scale[OSL_KEYS];
    osl_softmax sum[OSL_ROWS];
} step_room;

static size_t block_floats(const osl_kv *kv) {
    return (size_t)OSL_ROWS * (size_t)kv->dim;
}

static size_t part_pairs(const osl_kv *kv) {
    return (size_t)kv->dim / 2 * OSL_PAGE;
}

size_t osl_paged_scratch(const osl_kv *kv) {
    size_t widened = kv->format == OSL_INT8 ? (1 + OSL_STEP) * part_pairs(kv) : 0;
    size_t bytes = sizeof(step_room) + block_floats(kv) * sizeof(float) + widened * sizeof(osl_pair);
    return (bytes + 63) & ~(size_t)63;
}

// ---------------------------------------------------------------- what is to be done

static int room_for_one(void **list, int32_t used, int32_t *room, size_t size) {
    if (used < *room)
        return 0;
    int32_t wider = *room ? 2 * *room : 64;
    void *grown = realloc(*list, (size_t)wider * size);
    if (!grown)
        return -1;
    *list = grown;
    *room = wider;
    return 0;
}

static int add_span(osl_paged_plan *plan, osl_span span) {
    void *list = plan->span;
    if (room_for_one(&list, plan->spans, &plan->span_room, sizeof span))
        return -1;
    plan->span = list;
    plan->span[plan->spans++] = span;
    return 0;
}

static int add_merge(osl_paged_plan *plan, osl_merge merge) {
    void *list = plan->merge;
    if (room_for_one(&list, plan->merges, &plan->merge_room, sizeof merge))
        return -1;
    plan->merge = list;
    plan->merge[plan->merges++] = merge;
    return 0;
}

// One block of rows, whole or in parts.
static int add_block(osl_paged_plan *plan, osl_span span, int32_t groups) {
    int32_t rows = span.tokens * groups, begin = span.first, end = span.last;
    if (rows > OSL_FEW_ROWS || begin / OSL_SPLIT == (end - 1) / OSL_SPLIT)
        return add_span(plan, span);
    osl_merge merge = {
        .token = span.token, .tokens = span.tokens, .partial = plan->partials, .parts = 0};
    while (begin < end) {
        int32_t edge = (begin / OSL_SPLIT + 1) * OSL_SPLIT;
        span.first = begin;
        span.last = edge < end ? edge : end;
        span.partial = plan->partials;
        if (add_span(plan, span))
            return -1;
        plan->partials += rows;
        merge.parts++;
        begin = span.last;
    }
    return add_merge(plan, merge);
}

int osl_paged_add(osl_paged_plan *plan, const osl_places *places, int32_t token,
                      int32_t tokens, const int32_t *pages, int32_t window, int32_t groups) {
    int32_t most = OSL_ROWS / groups;
    for (int32_t done = 0; done < tokens; done += most) {
        int32_t first = token + done, count = tokens - done < most ? tokens - done : most;
        // Neither end of what a token sees lies before the one of the token before it.
        int32_t low = osl_low(places->position[first], window);
        int32_t high = places->high[first + count - 1];
        osl_span span = {.token = first,
                         .tokens = count,
                         .first = low / OSL_PAGE,
                         .last = (high - 1) / OSL_PAGE + 1,
                         .partial = -1,
                         .pages = pages};
        if (add_block(plan, span, groups))
            return -1;
    }
    return 0;
}

void osl_paged_plan_free(osl_paged_plan *plan) {
    free(plan->span);
    free(plan->merge);
    *plan = (osl_paged_plan){0};
}

// ---------------------------------------------------------------- doing it

OSL_CLONES static void multiply(float *x, int32_t n, float factor) {
    for (int32_t i = 0; i < n; i++)
        x[i] *= factor;
}

static int32_t within(int32_t x, int32_t top) {
    return x < 0 ? 0 : x < top ? x : top;
}

static void fetch_scales(const osl_paged *a, const uint8_t *block, int32_t page,
                         step_room *room) {
    size_t bytes = OSL_PAGE * sizeof(float);
    memcpy(room->key_scale + page * OSL_PAGE, osl_kv_key_scale(a->kv, block), bytes);
    memcpy(room->value_scale + page * OSL_PAGE, osl_kv_value_scale(a->kv, block), bytes);
}

// Keys or values of a block as pairs of bf16, in the page itself or in `room`.
static const osl_pair *as_bf16(const osl_paged *a, const osl_paged_kernels *kernels,
                               const void *stored, osl_pair *room) {
    if (a->kv->format != OSL_INT8)
        return stored;
    kernels->widen(stored, room, (int32_t)part_pairs(a->kv));
    return room;
}

// Up to OSL_STEP pages from `first` on: scores, weights, weighted values.
static void attend_step(const osl_paged *a, const osl_span *span, int32_t head, int32_t first,
                        const osl_paged_kernels *kernels, step_room *room, float *acc,
                        osl_pair *widened) {
    int32_t dim = a->kv->dim, rows = span->tokens * a->groups;
    int32_t pages = span->last - first < OSL_STEP ? span->last - first : OSL_STEP;
    const osl_bf16 *q =
        a->q + (size_t)head * a->plane + (size_t)span->token * (size_t)(a->groups * dim);
    const osl_pair *values[OSL_STEP];
    int scaled = a->kv->format == OSL_INT8;
    for (int32_t page = 0; page < pages; page++) {
        const uint8_t *block = osl_kv_block(a->kv, span->pages[first + page], a->layer, head);
        const osl_pair *keys = as_bf16(a, kernels, osl_kv_keys(a->kv, block), widened);
        kernels->scores(q, rows, dim, keys, room->score[0] + page * OSL_PAGE);
        values[page] = as_bf16(a, kernels, osl_kv_values(a->kv, block),
                               widened + (size_t)(1 + page) * part_pairs(a->kv));
        if (scaled)
            fetch_scales(a, block, page, room);
    }
    int32_t keys = pages * OSL_PAGE, begin = first * OSL_PAGE;
    for (int32_t row = 0; row < rows; row++) {
        int32_t token = span->token + row / a->groups;
        int32_t from = within(osl_low(a->places.position[token], a->window) - begin, keys);
        int32_t to = within(a->places.high[token] - begin, keys);
        if (from >= to) {
            memset(room->weight[row], 0, (size_t)keys * sizeof(osl_bf16));
            continue;
        }
        float factor = osl_softmax_step(&room->sum[row], room->score[row], keys, from, to,
                                        scaled ? room->key_scale : NULL,
                                        scaled ? room->value_scale : NULL, room->weight[row]);
        if (factor != 1)
            multiply(acc + row * dim, dim, factor);
    }
    kernels->weigh(room->weight[0], rows, dim, values, pages, acc);
}

// A block's result: to its place, or as a part with its sum and top behind it.
static void deliver(const osl_paged *a, const osl_span *span, int32_t head,
                    const step_room *room, float *acc) {
    int32_t dim = a->kv->dim, rows = span->tokens * a->groups;
    size_t ldy = (size_t)(a->kv->heads * a->groups * dim);
    for (int32_t row = 0; row < rows; row++) {
        float *from = acc + row * dim;
        if (span->partial < 0) {
            multiply(from, dim, 1 / room->sum[row].total);
            float *to = a->out + (size_t)(span->token + row / a->groups) * ldy +
                        (size_t)((head * a->groups + row % a->groups) * dim);
            memcpy(to, from, (size_t)dim * sizeof *to);
        } else {
            size_t place = (size_t)head * (size_t)a->plan->partials + (size_t)(span->partial + row);
            float *to = a->partial + place * (size_t)(dim + 2);
            memcpy(to, from, (size_t)dim * sizeof *to);
            to[dim] = room->sum[row].total;
            to[dim + 1] = (float)room->sum[row].top;
        }
    }
}

static void attend(void *context, int32_t thread, int32_t begin, int32_t end) {
    const osl_paged *a = context;
    uint8_t *scratch = a->scratch + (size_t)thread * osl_paged_scratch(a->kv);
    step_room *room = (step_room *)(void *)scratch;
    float *acc = (float *)(void *)(scratch + sizeof *room);
    osl_pair *widened = (osl_pair *)(void *)(acc + block_floats(a->kv));
    for (int32_t item = begin; item < end; item++) {
        // Heads outside, so that blocks of a sequence follow one another over the same pages; the
        // last ones first, as they are the longest.
        int32_t head = item / a->plan->spans;
        const osl_span *span = &a->plan->span[a->plan->spans - 1 - item % a->plan->spans];
        int32_t rows = span->tokens * a->groups;
        const osl_paged_kernels *kernels = osl_paged_kernels_for(rows, a->kv->dim);
        for (int32_t row = 0; row < rows; row++)
            room->sum[row] = osl_softmax_start();
        memset(acc, 0, (size_t)((rows + 15) / 16 * 16 * a->kv->dim) * sizeof *acc);
        for (int32_t first = span->first; first < span->last; first += OSL_STEP)
            attend_step(a, span, head, first, kernels, room, acc, widened);
        deliver(a, span, head, room, acc);
    }
}

// 2^(top - most), exact; 0 where it is beyond float32.
static float rescale(float top, float most) {
    int32_t biased = (int32_t)(top - most) + 127;
    return osl_float((uint32_t)(biased > 0 ? biased : 0) << 23);
}

OSL_CLONES static void add_scaled(float *to, const float *from, int32_t n, float factor) {
    for (int32_t i = 0; i < n; i++)
        to[i] += factor * from[i];
}

static void merge_row(float *to, const float *part, size_t next, int32_t parts, int32_t dim) {
    float most = part[dim + 1], total = 0;
    for (int32_t i = 1; i < parts; i++) {
        float top = part[(size_t)i * next + (size_t)dim + 1];
        most = top > most ? top : most;
    }
    memset(to, 0, (size_t)dim * sizeof *to);
    for (int32_t i = 0; i < parts; i++, part += next) {
        float factor = rescale(part[dim + 1], most);
        total += factor * part[dim];
        add_scaled(to, part, dim, factor);
    }
    multiply(to, dim, 1 / total);
}

static void merge(void *context, int32_t thread, int32_t begin, int32_t end) {
    (void)thread;
    const osl_paged *a = context;
    size_t dim = (size_t)a->kv->dim, width = (size_t)(a->kv->heads * a->groups) * dim;
    for (int32_t item = begin; item < end; item++) {
        int32_t head = item / a->plan->merges;
        const osl_merge *merge = &a->plan->merge[item % a->plan->merges];
        size_t rows = (size_t)(merge->tokens * a->groups);
        for (size_t row = 0; row < rows; row++) {
            size_t place = (size_t)head * (size_t)a->plan->partials + (size_t)merge->partial + row;
            size_t token = (size_t)merge->token + row / (size_t)a->groups;
            size_t query = (size_t)(head * a->groups) + row % (size_t)a->groups;
            merge_row(a->out + token * width + query * dim, a->partial + place * (dim + 2),
                      rows * (dim + 2), merge->parts, a->kv->dim);
        }
    }
}

void osl_paged_run(osl_pool *pool, const osl_paged *attention) {
    void *context = (void *)(uintptr_t)attention;
    osl_pool_run(pool, attention->plan->spans * attention->kv->heads, 1, attend, context);
    if (attention->plan->merges > 0)
        osl_pool_run(pool, attention->plan->merges * attention->kv->heads, 1, merge, context);
}
