#include "decoder_plan.h"

#include <stdlib.h>

static int grow(osl_plan *plan, int32_t tokens) {
    if (tokens <= plan->token_room)
        return OSL_DONE;
    size_t n = (size_t)tokens;
    free(plan->position);
    free(plan->soft);
    free(plan->run);
    // Four ints a token; runs, of which there may be one a token.
    plan->position = malloc(4 * n * sizeof *plan->position);
    plan->soft = malloc(n * sizeof *plan->soft);
    plan->run = malloc(n * sizeof *plan->run);
    plan->token_room = plan->position && plan->soft && plan->run ? tokens : 0;
    if (!plan->token_room)
        return OSL_NO_MEMORY;
    plan->high = plan->position + n;
    plan->id = plan->high + n;
    plan->want = plan->id + n;
    return OSL_DONE;
}

void osl_plan_free(osl_plan *plan) {
    free(plan->position);
    free(plan->soft);
    free(plan->run);
    osl_paged_plan_free(&plan->paged[OSL_LOCAL]);
    osl_paged_plan_free(&plan->paged[OSL_GLOBAL]);
    osl_paged_plan_free(&plan->last);
}

static int pages_given(const int32_t *page, int32_t first, int32_t last, int32_t there) {
    for (int32_t i = first; i <= last; i++)
        if (page[i] < 0 || page[i] >= there)
            return 0;
    return 1;
}

static int check(const osl_decoder_model *model, const osl_chunk *c, const int32_t pages[2]) {
    if (c->count < 1 || c->start < 0 || c->start > INT32_MAX - c->count || c->logits < 0 ||
        c->logits > c->count)
        return OSL_BAD_CHUNK;
    int64_t last = ((int64_t)c->start + c->count - 1) / OSL_PAGE;
    if (last >= c->pages)
        return OSL_BAD_PAGE;
    int32_t seen = osl_low(c->start, model->window) / OSL_PAGE;
    return pages_given(c->global_pages, 0, (int32_t)last, pages[OSL_GLOBAL]) &&
                   pages_given(c->local_pages, seen, (int32_t)last, pages[OSL_LOCAL])
               ? OSL_DONE
               : OSL_BAD_PAGE;
}

// Positions, and what each token sees: everything up to itself or to the end of its image.
static int place_tokens(osl_plan *plan, const osl_decoder_model *model, const osl_chunk *c,
                        int32_t token) {
    int32_t vocabulary = model->embedding.rows, soft = 0;
    for (int32_t i = 0; i < c->count; i++) {
        int32_t at = token + i, done = soft % model->image_tokens;
        int is_image = c->ids[i] == model->image_token;
        if (!is_image && done)
            return OSL_CUT_IMAGE;
        if (!is_image && (c->ids[i] < 0 || c->ids[i] >= vocabulary))
            return OSL_BAD_TOKEN;
        plan->position[at] = c->start + i;
        plan->high[at] = c->start + i + (is_image ? model->image_tokens - done : 1);
        plan->id[at] = c->ids[i];
        plan->soft[at] = NULL;
        if (is_image && soft < c->soft_rows)
            plan->soft[at] = c->soft + (size_t)soft * (size_t)model->hidden;
        soft += is_image;
    }
    if (soft % model->image_tokens)
        return OSL_CUT_IMAGE;
    return soft == c->soft_rows ? OSL_DONE : OSL_BAD_SOFT;
}

static void add_runs(osl_plan *plan, const osl_chunk *c, int32_t token) {
    for (int32_t i = 0; i < c->count;) {
        int32_t position = c->start + i, slot = position % OSL_PAGE;
        int32_t tokens = OSL_PAGE - slot < c->count - i ? OSL_PAGE - slot : c->count - i;
        int32_t page = position / OSL_PAGE;
        plan->run[plan->runs++] = (osl_run){.token = token + i,
                                            .tokens = tokens,
                                            .slot = slot,
                                            .page = {c->local_pages[page], c->global_pages[page]}};
        i += tokens;
    }
}

static int add_attention(osl_plan *plan, const osl_decoder_model *model, const osl_chunk *c,
                         int32_t token) {
    osl_places places = {plan->position, plan->high};
    int32_t groups = model->heads / model->kv_heads, last = token + c->count - c->logits;
    int global = model->layer[model->layers - 1].global != 0;
    int failed =
        osl_paged_add(&plan->paged[OSL_LOCAL], &places, token, c->count, c->local_pages,
                      model->window, groups) ||
        osl_paged_add(&plan->paged[OSL_GLOBAL], &places, token, c->count, c->global_pages, 0,
                      groups) ||
        osl_paged_add(&plan->last, &places, last, c->logits,
                      global ? c->global_pages : c->local_pages, global ? 0 : model->window,
                      groups);
    return failed ? OSL_NO_MEMORY : OSL_DONE;
}

static void empty(osl_plan *plan) {
    osl_paged_plan *paged[] = {&plan->paged[OSL_LOCAL], &plan->paged[OSL_GLOBAL], &plan->last};
    for (int i = 0; i < 3; i++)
        paged[i]->spans = paged[i]->merges = paged[i]->partials = 0;
    plan->runs = plan->wanted = plan->tokens = 0;
}

int osl_plan_make(osl_plan *plan, const osl_decoder_model *model, const osl_chunk *chunk,
                  int32_t chunks, const int32_t pages[2]) {
    empty(plan);
    int64_t tokens = 0;
    for (int32_t i = 0; i < chunks; i++) {
        int status = check(model, &chunk[i], pages);
        if (status)
            return status;
        tokens += chunk[i].count;
    }
    if (tokens > INT32_MAX / 4)
        return OSL_NO_MEMORY;
    int status = grow(plan, (int32_t)tokens);
    for (int32_t i = 0; i < chunks && !status; i++) {
        const osl_chunk *c = &chunk[i];
        status = place_tokens(plan, model, c, plan->tokens);
        if (status)
            break;
        add_runs(plan, c, plan->tokens);
        status = add_attention(plan, model, c, plan->tokens);
        for (int32_t j = c->count - c->logits; j < c->count; j++)
            plan->want[plan->wanted++] = plan->tokens + j;
        plan->tokens += c->count;
    }
    return status;
}
