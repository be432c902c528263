#include "attention_decoder.h"

const osl_paged_kernels *osl_paged_kernels_for(int32_t rows, int32_t dim) {
    (void)rows;
    (void)dim;
    return &osl_paged_portable;
}
