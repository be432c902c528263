// The body of the two bf16 files. Before it come the type `pairs` (2 columns of 16 rows) and
//   load_pairs(p)          one line of weights
//   broadcast_pairs(p)     2 activations for all rows
//   dot(sum, w, x)         sum + the products of both columns
// and the name of the function to define, OSL_MULTIPLY_BF16.

enum {
    MANY = 12, // tokens in one register tile of 32 rows
    CHAINS = 4 // sums of one token at a time
};

// One row block, one sequential stream.
OSL_INLINE void few_bf16(const osl_bf16 *p, const osl_bf16 *x, int64_t stride, int32_t cols,
                         float *tile, const int n) {
    const int chains = n == 1 ? CHAINS : n == 2 ? 2 : 1;
    __m512 f[OSL_FEW][CHAINS];
    for (int t = 0; t < n; t++)
        for (int k = 0; k < chains; k++)
            f[t][k] = _mm512_setzero_ps();
    for (int32_t c = 0; c < cols; c += 8) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++, p += 32) {
            _mm_prefetch((const char *)p + OSL_AHEAD, _MM_HINT_T0);
            pairs v = load_pairs(p);
#pragma GCC unroll 8
            for (int t = 0; t < n; t++)
                f[t][k % chains] =
                    dot(f[t][k % chains], v, broadcast_pairs(x + t * stride + c + 2 * k));
        }
    }
    for (int t = 0; t < n; t++) {
        for (int k = 1; k < chains; k++)
            f[t][0] = _mm512_add_ps(f[t][0], f[t][k]);
        _mm512_storeu_ps(tile + t * OSL_PAIR, f[t][0]);
    }
}

// Two row blocks.
OSL_INLINE void many_bf16(const osl_bf16 *w0, const osl_bf16 *w1, const osl_bf16 *x, int64_t stride,
                          int32_t cols, osl_tile *tile, const int n) {
    __m512 f[2][MANY];
    for (int t = 0; t < n; t++)
        f[0][t] = f[1][t] = _mm512_setzero_ps();
    for (int32_t c = 0; c < cols; c += 2, w0 += 32, w1 += 32) {
        pairs v0 = load_pairs(w0), v1 = load_pairs(w1);
#pragma GCC unroll 12
        for (int t = 0; t < n; t++) {
            pairs v = broadcast_pairs(x + t * stride + c);
            f[0][t] = dot(f[0][t], v0, v);
            f[1][t] = dot(f[1][t], v1, v);
        }
    }
    for (int t = 0; t < n; t++) {
        _mm512_storeu_ps(tile[t], f[0][t]);
        _mm512_storeu_ps(tile[t] + OSL_ROW_BLOCK, f[1][t]);
    }
}

typedef void few_fn(const osl_bf16 *p, const osl_bf16 *x, int64_t stride, int32_t cols,
                    float *tile);
#define FEW(n)                                                                                     \
    static void few_##n(const osl_bf16 *p, const osl_bf16 *x, int64_t stride, int32_t cols,        \
                        float *tile) {                                                             \
        few_bf16(p, x, stride, cols, tile, n);                                                     \
    }
FEW(1)
FEW(2)
FEW(3)
FEW(4)
FEW(5)
FEW(6)
FEW(7)
FEW(8)
static few_fn *const few[OSL_FEW + 1] = {0,     few_1, few_2, few_3, few_4,
                                         few_5, few_6, few_7, few_8};

typedef void many_fn(const osl_bf16 *w0, const osl_bf16 *w1, const osl_bf16 *x, int64_t stride,
                     int32_t cols, osl_tile *tile);
#define MANY_BF16(n)                                                                               \
    static void many_##n(const osl_bf16 *w0, const osl_bf16 *w1, const osl_bf16 *x,                \
                         int64_t stride, int32_t cols, osl_tile *tile) {                           \
        many_bf16(w0, w1, x, stride, cols, tile, n);                                               \
    }
MANY_BF16(7)
MANY_BF16(8)
MANY_BF16(9)
MANY_BF16(10)
MANY_BF16(11)
MANY_BF16(12)
// More than OSL_FEW tokens in equal parts of at most MANY: never fewer than 7 each.
static many_fn *const many[MANY + 1] = {[7] = many_7, many_8, many_9, many_10, many_11, many_12};

void OSL_MULTIPLY_BF16(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                       int32_t last) {
    const int32_t cols = osl_padded(a->cols, 32);
    const int64_t values = (int64_t)cols * OSL_ROW_BLOCK; // of a row block
    const int32_t part = osl_part(a->tokens, a->tokens <= OSL_FEW ? OSL_FEW : MANY);
    for (int32_t block = first; block < last; block += 2) {
        const int32_t blocks = last - block < 2 ? 1 : 2;
        const osl_bf16 *p = (const osl_bf16 *)w->data + block * values;
        for (int32_t start = 0; start < a->tokens; start += part) {
            const int32_t token = start + part > a->tokens ? a->tokens - part : start;
            const int32_t done = start - token;
            const osl_bf16 *x = (const osl_bf16 *)a->values + token * a->stride;
            osl_tile tile[MANY];
            if (a->tokens > OSL_FEW)
                many[part](p, p + (blocks - 1) * values, x, a->stride, cols, tile);
            else
                for (int32_t b = 0; b < blocks; b++)
                    few[part](p + b * values, x, a->stride, cols, tile[0] + b * OSL_ROW_BLOCK);
            osl_emit_avx512(w, out, block, blocks, start, part - done, tile + done, 0);
        }
    }
}
