#include <pthread.h>
#include <string.h>

#include "attention_decoder.h"
#include "cpu.h"
#include "kernels.h"

// Rows from which a tile, most of it empty, is no loss.
enum { TILE_ROWS = 9, MOST_DIM = 256 };

static const osl_paged_kernels *few, *many;

// No better than the linear layers' kernels, which the environment may have named.
static void choose(void) {
    few = many = &osl_paged_portable;
#if defined(OSL_X86)
    const char *name = osl_kernels_chosen()->name;
    // One generation has AVX512_BF16 and not AVX512_VBMI: AVX2 for it.
    int tiles = strcmp(name, "amx") == 0;
    if (osl_cpu_features()->avx2 && strcmp(name, "portable") != 0)
        few = many = &osl_paged_avx2;
    int pairs = osl_cpu_features()->avx512 && __builtin_cpu_supports("avx512vbmi");
    if (pairs && (tiles || strcmp(name, "avx512") == 0))
        few = many = &osl_paged_avx512;
    if (pairs && tiles)
        many = &osl_paged_amx;
#endif
}

const osl_paged_kernels *osl_paged_kernels_for(int32_t rows, int32_t dim) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    if (dim % 32 != 0 || dim > MOST_DIM)
        return &osl_paged_portable;
    return rows < TILE_ROWS ? few : many;
}
