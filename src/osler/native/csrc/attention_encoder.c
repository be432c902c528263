// Attention of the encoder for any processor, and the choice among the ways to compute it.
#include "attention_encoder.h"

#include <string.h>

#define VECTOR_BYTES 16
#define QUERIES 4
#include "attention_encoder_float.h"
#include "kernels.h"

static const osl_attention portable = {
    .name = "portable",
    .tile = TILES * QUERIES,
    .step = QUERIES,
    .layout = layout,
    .pack = pack,
    .attend = attend,
};

const osl_attention *osl_attention_named(const char *name) {
    if (!strcmp(name, "amx"))
        return osl_attention_amx();
    if (!strcmp(name, "avx512"))
        return osl_attention_avx512();
    if (!strcmp(name, "avx2") || !strcmp(name, "avxvnni") || !strcmp(name, "avx512vnni"))
        return osl_attention_avx2();
    return strcmp(name, "portable") ? NULL : &portable;
}

const osl_attention *osl_attention_chosen(void) {
    const char *name = osl_kernels_chosen()->name;
    const osl_attention *found = osl_attention_named(name);
    // Tables for integer products beyond AVX2 change nothing here.
    if (!found && !strncmp(name, "avx", 3))
        found = osl_attention_avx2();
    return found ? found : &portable;
}
