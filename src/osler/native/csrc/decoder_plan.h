// What a pass is made of, found out once before its layers run.
#ifndef OSL_DECODER_PLAN_H
#define OSL_DECODER_PLAN_H

#include "attention_decoder.h"
#include "decoder.h"

enum { OSL_LOCAL = 0, OSL_GLOBAL = 1 };

// Consecutive tokens of one chunk in one page.
typedef struct {
    int32_t token, tokens;
    int32_t slot;    // of the first one
    int32_t page[2]; // OSL_LOCAL, OSL_GLOBAL
} osl_run;

typedef struct {
    int32_t tokens, wanted;
    int32_t token_room;
    int32_t *position, *high; // [tokens], as osl_places
    int32_t *id;              // [tokens]
    int32_t *want;            // [wanted] tokens whose logits are wanted
    const float **soft;       // [tokens] what stands for an image token; NULL at text
    osl_run *run;
    int32_t runs;
    osl_paged_plan paged[2]; // OSL_LOCAL, OSL_GLOBAL: all tokens
    osl_paged_plan last;     // those wanted, of the last layer's kind
} osl_plan;

// Checks the chunks against the pages there are and lays out the pass; osl_status.
int osl_plan_make(osl_plan *plan, const osl_decoder_model *model, const osl_chunk *chunk,
                  int32_t chunks, const int32_t pages[2]);
void osl_plan_free(osl_plan *plan);

#endif
