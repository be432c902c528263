#include "kernels.h"

#include <pthread.h>
#include <stdlib.h>

#include "cpu.h"

// A target has not all of them: those that no file defines are NULL here.
#pragma weak osl_kernels_neon
#pragma weak osl_kernels_avx2
#pragma weak osl_kernels_avxvnni
#pragma weak osl_kernels_avx512vnni
#pragma weak osl_kernels_avx512
#pragma weak osl_kernels_amx

// Best first.
static const osl_kernels *usable(int place) {
    const osl_cpu *cpu = osl_cpu_features();
    switch (place) {
    case 0:
        return cpu->amx ? &osl_kernels_amx : NULL;
    case 1:
        return cpu->avx512 ? &osl_kernels_avx512 : NULL;
    case 2:
        return cpu->avx512_vnni ? &osl_kernels_avx512vnni : NULL;
    case 3:
        return cpu->avx_vnni ? &osl_kernels_avxvnni : NULL;
    case 4:
        return cpu->avx2 ? &osl_kernels_avx2 : NULL;
    case 5:
        return cpu->neon_dot ? &osl_kernels_neon : NULL;
    default:
        return &osl_kernels_portable;
    }
}

enum { PLACES = 7 };

const osl_kernels *osl_kernels_named(const char *name) {
    for (int place = 0; place < PLACES; place++) {
        const osl_kernels *table = usable(place);
        if (table && strcmp(table->name, name) == 0)
            return table;
    }
    return NULL;
}

static const osl_kernels *chosen;

static void choose(void) {
    const char *name = getenv("OSLER_NATIVE_KERNELS");
    if (name && *name)
        chosen = osl_kernels_named(name);
    else
        for (int place = 0; place < PLACES && !chosen; place++)
            chosen = usable(place);
    if (!chosen)
        chosen = &osl_kernels_portable;
}

const osl_kernels *osl_kernels_chosen(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return chosen;
}

const char *osl_kernels_name(void) {
    return osl_kernels_chosen()->name;
}
