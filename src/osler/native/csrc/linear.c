#include "linear.h"

#include "kernels.h"

enum { FEW = 8, MANY = 8 };

int32_t osl_column_unit(int32_t format) {
    switch (format) {
    case OSL_INT4:
        return 256;
    case OSL_INT8:
        return 64;
    default:
        return 32;
    }
}

// Bytes of one unit of columns of a row block.
static size_t unit_bytes(int32_t format) {
    switch (format) {
    case OSL_INT4:
        return 2112;
    case OSL_Q8_0:
        return 544;
    case OSL_Q4_0:
        return 288;
    default:
        return 1024;
    }
}

static int64_t parts(int64_t whole, int64_t part) {
    return (whole + part - 1) / part;
}

static int64_t up(int64_t value, int64_t multiple) {
    return parts(value, multiple) * multiple;
}

size_t osl_packed_bytes(int32_t format, int32_t rows, int32_t cols) {
    size_t units = (size_t)parts(cols, osl_column_unit(format));
    return (size_t)parts(rows, OSL_ROW_BLOCK) * units * unit_bytes(format);
}

// Values of one token. All units divide 64 or are multiples of it.
static int64_t stride(const osl_matrix *w) {
    return up(up(w->cols, osl_column_unit(w->format)), 64);
}

static int64_t groups(const osl_matrix *w) {
    return w->format == OSL_BF16 ? 0 : parts(w->cols, w->group);
}

static size_t values_bytes(const osl_matrix *w, int32_t tokens) {
    size_t width = w->format == OSL_BF16 ? 2 : 1;
    return (size_t)tokens * (size_t)stride(w) * width; // whole lines
}

static size_t scale_bytes(const osl_matrix *w, int32_t tokens) {
    return (size_t)up((int64_t)tokens * groups(w) * (int64_t)sizeof(float), 64);
}

static size_t sum_bytes(const osl_matrix *w, int32_t tokens) {
    return scale_bytes(w, tokens) * (w->format == OSL_INT4 ? 8 : 1);
}

size_t osl_acts_bytes(const osl_matrix *w, int32_t tokens) {
    return values_bytes(w, tokens) + scale_bytes(w, tokens) + sum_bytes(w, tokens);
}

osl_acts osl_acts_place(const osl_matrix *w, int32_t tokens, void *memory) {
    uint8_t *scale = (uint8_t *)memory + values_bytes(w, tokens);
    return (osl_acts){
        .format = w->format,
        .tokens = tokens,
        .cols = w->cols,
        .group = w->group,
        .stride = stride(w),
        .values = memory,
        .scale = (float *)scale,
        .sum = (int32_t *)(scale + scale_bytes(w, tokens)),
    };
}

void osl_acts_fill(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last) {
    osl_fill_fn *fill = osl_kernels_chosen()->fill;
    (fill ? fill : osl_kernels_portable.fill)(acts, x, ldx, first, last);
}

void osl_multiply(const osl_matrix *w, const osl_acts *acts, const osl_out *out, int32_t first,
                  int32_t last) {
    osl_multiply_fn *multiply = osl_kernels_chosen()->multiply[w->format];
    (multiply ? multiply : osl_kernels_portable.multiply[w->format])(w, acts, out, first, last);
}

typedef struct {
    const osl_matrix *w;
    const float *x;
    int64_t ldx;
    osl_acts acts;
    const osl_out *out;
} product;

static void fill_work(void *context, int32_t thread, int32_t first, int32_t last) {
    product *p = context;
    (void)thread;
    osl_acts_fill(&p->acts, p->x, p->ldx, first, last);
}

static void multiply_work(void *context, int32_t thread, int32_t first, int32_t last) {
    product *p = context;
    (void)thread;
    osl_multiply(p->w, &p->acts, p->out, first, last);
}

void osl_linear(osl_pool *pool, const osl_matrix *w, const float *x, int64_t ldx, int32_t tokens,
                const osl_out *out, void *memory) {
    product p = {w, x, ldx, osl_acts_place(w, tokens, memory), out};
    int32_t threads = osl_pool_threads(pool);
    osl_pool_run(pool, tokens, (int32_t)parts(tokens, 4 * threads), fill_work, &p);
    // Chunks small enough that no thread waits long for the last one, large enough to hide the
    // handing out, and even, because kernels like pairs of row blocks. With many tokens a chunk is
    // work enough, and kernels take no more row blocks together than MANY.
    int32_t blocks = (int32_t)parts(w->rows, OSL_ROW_BLOCK);
    int32_t chunk = (int32_t)up(parts(blocks, 16 * threads), 2);
    if (tokens > FEW) {
        chunk = blocks / (6 * threads) / 2 * 2;
        chunk = chunk < 2 ? 2 : chunk > MANY ? MANY : chunk;
    }
    osl_pool_run(pool, blocks, chunk, multiply_work, &p);
}
