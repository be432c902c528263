// Compares a table of kernels with the portable one, where Python does not run (under qemu-user).
//
//   kernels_agree TABLE      0: they agree; 1: they do not, one line says where; 2: no such table
//
// Conversion of activations is compared bit for bit. Products differ by the order in which groups
// are added; the tolerance is relative to the largest of a product.
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu.h"
#include "kernels.h"
#include "pack.h"

enum { FORMATS = 5 };

static uint64_t state = 88172645463325252u;

// Uniform in [-1, 1).
static float uniform(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

static void *lines(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!memory)
        exit(3);
    return memory;
}

// Any bytes are weights, but for the 16-bit floats among them.
static osl_matrix random_matrix(int32_t format, int32_t rows, int32_t cols, int32_t group) {
    size_t bytes = osl_packed_bytes(format, rows, cols);
    uint8_t *data = lines(bytes);
    float *row_scale = NULL;
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(int)(uniform() * 128);
    // Exponents that neither overflow nor vanish.
    for (size_t i = 0; format == OSL_BF16 && i < bytes; i += 2)
        data[i + 1] = (data[i + 1] & 0x81) | 0x3e;
    size_t unit = format == OSL_Q8_0 ? 544 : 288;
    for (size_t i = 0; (format == OSL_Q8_0 || format == OSL_Q4_0) && i < bytes; i += unit)
        for (size_t k = unit - 32; k < unit; k += 2)
            data[i + k + 1] = (data[i + k + 1] & 0x83) | 0x28;
    if (format == OSL_INT8 || format == OSL_INT4) {
        row_scale = lines(sizeof(float) * (size_t)(rows + 15));
        for (int32_t r = 0; r < (rows + 15) / 16 * 16; r++)
            row_scale[r] = 1 + uniform() / 2;
    }
    return (osl_matrix){format, rows, cols, group, data, row_scale};
}

static bool same_acts(const osl_matrix *w, const osl_acts *a, const osl_acts *b) {
    size_t groups = w->group ? (size_t)((w->cols + w->group - 1) / w->group) : 0;
    size_t tokens = (size_t)a->tokens, sums = groups * (w->format == OSL_INT4 ? 8 : 1);
    size_t width = w->format == OSL_BF16 ? 2 : 1;
    return memcmp(a->values, b->values, tokens * (size_t)a->stride * width) == 0 &&
           memcmp(a->scale, b->scale, tokens * groups * sizeof(float)) == 0 &&
           memcmp(a->sum, b->sum, tokens * sums * sizeof(int32_t)) == 0;
}

static float tolerance(int32_t format) {
    return format == OSL_BF16 ? 1e-4f : 1e-5f;
}

// The largest difference over the largest value.
static float difference(const float *a, const float *b, int64_t n) {
    float most = 0, size = 1e-20f;
    for (int64_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(a[i] - b[i]));
        size = fmaxf(size, fabsf(b[i]));
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
    }
    return most / size;
}

static bool agree(const osl_kernels *table, int32_t format, int32_t kind, int32_t rows,
                  int32_t cols, int32_t tokens, bool whole) {
    const osl_kernels *portable = &osl_kernels_portable;
    static const int32_t groups[FORMATS] = {0, 256, 256, 32, 32};
    if (kind == OSL_GEGLU)
        rows = (rows + 31) / 32 * 32;
    osl_matrix w = random_matrix(format, rows, cols, whole ? cols : groups[format]);
    int64_t outputs = kind == OSL_GEGLU ? rows / 2 : rows, count = outputs * tokens;
    float *x = lines(sizeof(float) * (size_t)tokens * (size_t)cols);
    float *bias = lines(sizeof(float) * (size_t)rows);
    float *y[2] = {lines(sizeof(float) * (size_t)count), lines(sizeof(float) * (size_t)count)};
    for (int64_t i = 0; i < (int64_t)tokens * cols; i++)
        x[i] = i % 97 == 0 ? 2 * uniform() : uniform();
    if (tokens > 1)
        memset(x, 0, sizeof(float) * (size_t)cols);
    for (int32_t i = 0; i < rows; i++)
        bias[i] = uniform();
    for (int64_t i = 0; i < count; i++)
        y[0][i] = y[1][i] = uniform();
    size_t bytes = osl_acts_bytes(&w, tokens);
    void *memory[2] = {lines(bytes), lines(bytes)};
    osl_acts acts[2];
    for (int i = 0; i < 2; i++) {
        const osl_kernels *one = i ? portable : table;
        osl_out out = {kind, outputs, y[i], kind % 2 ? bias : NULL};
        memset(memory[i], 85, bytes);
        acts[i] = osl_acts_place(&w, tokens, memory[i]);
        (one->fill ? one->fill : portable->fill)(&acts[i], x, cols, 0, tokens);
        (one->multiply[format] ? one->multiply : portable->multiply)[format](
            &w, &acts[i], &out, 0, (rows + 15) / 16);
    }
    bool same = same_acts(&w, &acts[0], &acts[1]);
    float wrong = difference(y[0], y[1], count);
    if (!same || !(wrong <= tolerance(format)))
        printf("format %d, kind %d, %d x %d, %d tokens: activations %s, products differ by %g\n",
               format, kind, rows, cols, tokens, same ? "the same" : "differ", wrong);
    free((void *)w.data);
    free((void *)w.row_scale);
    free(x);
    free(bias);
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(memory[i]);
    }
    return same && wrong <= tolerance(format);
}

int main(int count, char **arguments) {
    static const int32_t rows[] = {16, 5, 33, 96}, cols[] = {32, 256, 7, 300, 1152};
    static const int32_t tokens[] = {1, 2, 3, 4, 5, 8, 33, 70};
    const osl_kernels *table = osl_kernels_named(count > 1 ? arguments[1] : "portable");
    if (!table)
        return 2;
    int compared = 0;
    for (int32_t format = 0; format < FORMATS; format++)
        for (int32_t kind = OSL_STORE; kind <= OSL_GEGLU; kind++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
                    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
                        bool whole = format == OSL_INT8 && t % 2;
                        if (!agree(table, format, kind, rows[r], cols[c], tokens[t], whole))
                            return 1;
                        compared++;
                    }
    printf("%s, matrix products %s: %d products agree\n", table->name,
           osl_cpu_features()->neon_mm ? "on" : "off", compared);
    return 0;
}
