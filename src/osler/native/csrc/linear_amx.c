// AMX: tiles of 16 tokens x 64 bytes of activations as they lie, times tiles of 64 bytes x 16 rows
// of weights as they lie (a line of packed weights is a row of a tile), two by two.
//
// Many tokens' activations do not stay in the L2 cache, and what lies behind it is slow. So OSL_GROUP
// row blocks take turns with each part of the tokens, which comes from afar once for all of them.
#define OSL_WITH_AMX
#include "linear_avx512.h"

#ifdef OSL_X86

enum {
    TILE = 16,         // tokens in a tile
    TILE_BYTES = 1024, // of weights: 16 lines
    GROUP_PAIRS = OSL_GROUP / 2,
    WIDE_TOKENS = 512 // tokens that share one widening of int4; their sums are on the stack (256 KiB)
};

// What tile instructions read and write is invisible to the compiler; all that `p` points to is
// in memory after this.
#define FENCE(p) __asm__ volatile("" ::"r"(p) : "memory")

// Tiles 0 and 1 are sums of the first 16 tokens with both row blocks, 2 and 3 of the next tokens;
// 4 and 5 are activations, 6 and 7 weights.
static void configure(int32_t tokens) {
    struct {
        uint8_t palette, start, zero[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.bytes[i] = 64;
        tiles.rows[i] = (uint8_t)(i < 6 ? tokens : 16);
    }
    FENCE(&tiles);
    _tile_loadconfig(&tiles);
}

typedef int32_t counts[2 * TILE][OSL_PAIR];

// Where the weights are that are multiplied one group of row blocks later, and how many of their
// lines each step fetches into the L2 cache.
typedef struct {
    const uint8_t *p;
    int32_t lines;
} fetch;

OSL_INLINE void fetch_some(fetch f, int32_t step) {
    for (int32_t i = step * f.lines; i < (step + 1) * f.lines; i++)
        _mm_prefetch((const char *)f.p + (int64_t)i * 64, _MM_HINT_T1);
}

// The lines are spread over all parts of the tokens.
OSL_INLINE fetch fetch_next(const uint8_t *next, int64_t bytes, int32_t part, int32_t parts) {
    const int32_t lines = 2 * TILE_BYTES / 64, each = (lines + parts - 1) / parts;
    return (fetch){next + 2 * bytes / lines * each * part, each};
}

// The products of 2 x m tokens (x points at the first token of either tile; the same when there is
// only one) with two row blocks over `steps` times 64 bytes, stored to `to`.
#define MULTIPLY(name, product)                                                                    \
    OSL_INLINE void name(const uint8_t *w0, const uint8_t *w1, const uint8_t *x0,                  \
                         const uint8_t *x1, int64_t stride, int32_t steps, fetch next) {           \
        _tile_zero(0);                                                                             \
        _tile_zero(1);                                                                             \
        _tile_zero(2);                                                                             \
        _tile_zero(3);                                                                             \
        FENCE(w0);                                                                                 \
        for (int32_t s = 0; s < steps; s++) {                                                      \
            fetch_some(next, s);                                                                   \
            _tile_loadd(6, w0 + (int64_t)s * TILE_BYTES, 64);                                      \
            _tile_loadd(4, x0 + (int64_t)s * 64, stride);                                          \
            product(0, 4, 6);                                                                      \
            _tile_loadd(7, w1 + (int64_t)s * TILE_BYTES, 64);                                      \
            product(1, 4, 7);                                                                      \
            _tile_loadd(5, x1 + (int64_t)s * 64, stride);                                          \
            product(2, 5, 6);                                                                      \
            product(3, 5, 7);                                                                      \
        }                                                                                          \
    }                                                                                              \
    /* The same for one tile of tokens; odd steps have sums of their own, because four products */ \
    /* must be under way to fill the unit. */                                                      \
    OSL_INLINE void name##_one(const uint8_t *w0, const uint8_t *w1, const uint8_t *x,             \
                               int64_t stride, int32_t steps, fetch next) {                        \
        _tile_zero(0);                                                                             \
        _tile_zero(1);                                                                             \
        _tile_zero(2);                                                                             \
        _tile_zero(3);                                                                             \
        FENCE(w0);                                                                                 \
        int32_t s = 0;                                                                             \
        for (; s + 1 < steps; s += 2) {                                                            \
            fetch_some(next, s);                                                                   \
            fetch_some(next, s + 1);                                                               \
            _tile_loadd(4, x + (int64_t)s * 64, stride);                                           \
            _tile_loadd(6, w0 + (int64_t)s * TILE_BYTES, 64);                                      \
            product(0, 4, 6);                                                                      \
            _tile_loadd(7, w1 + (int64_t)s * TILE_BYTES, 64);                                      \
            product(1, 4, 7);                                                                      \
            _tile_loadd(5, x + (int64_t)s * 64 + 64, stride);                                      \
            _tile_loadd(6, w0 + (int64_t)s * TILE_BYTES + TILE_BYTES, 64);                         \
            product(2, 5, 6);                                                                      \
            _tile_loadd(7, w1 + (int64_t)s * TILE_BYTES + TILE_BYTES, 64);                         \
            product(3, 5, 7);                                                                      \
        }                                                                                          \
        if (s < steps) {                                                                           \
            fetch_some(next, s);                                                                   \
            _tile_loadd(4, x + (int64_t)s * 64, stride);                                           \
            _tile_loadd(6, w0 + (int64_t)s * TILE_BYTES, 64);                                      \
            product(0, 4, 6);                                                                      \
            _tile_loadd(7, w1 + (int64_t)s * TILE_BYTES, 64);                                      \
            product(1, 4, 7);                                                                      \
        }                                                                                          \
    }

MULTIPLY(multiply_int8, _tile_dpbssd)
MULTIPLY(multiply_bf16, _tile_dpbf16ps)

// A part of the tokens that is computed at once: two tiles of m tokens, or one.
typedef struct {
    int32_t token;  // the first token of the first tile
    int32_t second; // how many tokens later the second tile starts, at most m; 0: there is none
    int32_t done;   // so many tokens of a single tile were in a part before
    int32_t n;      // so many are new
} part;

OSL_INLINE part take(int32_t start, int32_t tokens, int32_t m) {
    const int32_t left = tokens - start;
    if (left > m) {
        const int32_t n = left < 2 * m ? left : 2 * m;
        return (part){start, n - m, 0, n};
    }
    return (part){tokens - m, 0, m - left, left};
}

// Tiles that overlap agree where they do.
OSL_INLINE void store(void *to, int32_t second) {
    char *p = to, *q = p + (size_t)second * sizeof(osl_tile);
    _tile_stored(0, p, sizeof(osl_tile));
    _tile_stored(1, p + 64, sizeof(osl_tile));
    _tile_stored(2, q, sizeof(osl_tile));
    _tile_stored(3, q + 64, sizeof(osl_tile));
    FENCE(to);
}

// tile += (c + odd) * scale.
OSL_INLINE void add_scaled(counts c, counts odd, int32_t n, const float *scale, int32_t groups,
                           osl_tile *tile) {
    for (int32_t t = 0; t < n; t++) {
        __m512 s = _mm512_set1_ps(scale[(int64_t)t * groups]);
        for (int b = 0; b < OSL_PAIR; b += OSL_ROW_BLOCK) {
            __m512i i = _mm512_loadu_si512(&c[t][b]);
            if (odd)
                i = _mm512_add_epi32(i, _mm512_loadu_si512(&odd[t][b]));
            __m512 f = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i), s, _mm512_loadu_ps(&tile[t][b]));
            _mm512_storeu_ps(&tile[t][b], f);
        }
    }
}

// tile += the products of the new tokens of a part with `cols` columns of group `group`.
OSL_INLINE void add_group(const uint8_t *w0, const uint8_t *w1, const osl_acts *a, part p,
                          int32_t m, int32_t cols, int32_t group, osl_tile *tile, fetch next) {
    _Alignas(64) counts c;
    const int32_t groups = osl_groups(a);
    const uint8_t *x = (const uint8_t *)a->values + p.token * a->stride;
    const float *scale = a->scale + (int64_t)(p.token + p.done) * groups + group;
    x += (int64_t)group * a->group;
    if (p.second) {
        multiply_int8(w0, w1, x, x + p.second * a->stride, a->stride, cols / 64, next);
        store(c, p.second);
        add_scaled(c, NULL, p.n, scale, groups, tile);
    } else {
        multiply_int8_one(w0, w1, x, a->stride, cols / 64, next);
        store(c, m);
        add_scaled(c + p.done, c + m + p.done, p.n, scale, groups, tile);
    }
}

// The weights of a pair of row blocks among those of a group; a last one alone is its own second.
typedef struct {
    const uint8_t *w[2];
} pair;

OSL_INLINE pair take_pair(const uint8_t *data, int64_t bytes, int32_t number, int32_t blocks) {
    const uint8_t *first = data + 2 * number * bytes;
    return (pair){{first, 2 * number + 1 < blocks ? first + bytes : first}};
}

static void amx_int8(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    if (a->tokens <= OSL_FEW) {
        osl_few_avx512(w, a, out, first, last);
        return;
    }
    const int32_t groups = osl_groups(a), group = osl_group_cols(a), m = osl_part(a->tokens, TILE);
    const int32_t cols = osl_padded(a->cols, 64), parts = osl_parts(a->tokens, 2 * m);
    const int64_t bytes = (int64_t)cols * OSL_ROW_BLOCK;
    _Alignas(64) osl_tile tile[GROUP_PAIRS][2 * TILE];
    configure(m);
    for (int32_t block = first; block < last; block += OSL_GROUP) {
        const int32_t blocks = last - block < OSL_GROUP ? last - block : OSL_GROUP;
        const uint8_t *data = w->data + block * bytes;
        for (int32_t start = 0; start < a->tokens; start += 2 * m) {
            const part p = take(start, a->tokens, m);
            for (int32_t i = 0; i < osl_parts(blocks, 2); i++) {
                const pair at = take_pair(data, bytes, i, blocks);
                memset(tile[i], 0, sizeof *tile[i] * (size_t)p.n);
                for (int32_t g = 0; g < groups; g++) {
                    const int32_t c = g * group, end = g + 1 < groups ? c + group : cols;
                    const int64_t from = OSL_ROW_BLOCK * (int64_t)c;
                    fetch next = fetch_next(at.w[0] + OSL_GROUP * bytes, bytes, start / (2 * m),
                                            parts);
                    next.p += c / 64 * next.lines * 64;
                    add_group(at.w[0] + from, at.w[1] + from, a, p, m, end - c, g, tile[i], next);
                }
            }
            osl_emit_avx512(w, out, block, blocks, start, p.n, tile[0], 2 * TILE);
        }
    }
    _tile_release();
}

static void amx_int4(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    if (a->tokens <= OSL_FEW) {
        osl_few_avx512(w, a, out, first, last);
        return;
    }
    const int32_t chunks = osl_groups(a), m = osl_part(a->tokens, TILE);
    const int32_t share = WIDE_TOKENS / (2 * m) * (2 * m);
    const size_t bytes = (size_t)chunks * OSL_INT4_BYTES;
    _Alignas(64) uint8_t wide[OSL_GROUP][OSL_INT4_COLS * OSL_ROW_BLOCK];
    _Alignas(64) osl_tile tile[GROUP_PAIRS][WIDE_TOKENS];
    configure(m);
    for (int32_t block = first; block < last; block += OSL_GROUP) {
        const int32_t blocks = last - block < OSL_GROUP ? last - block : OSL_GROUP;
        const int32_t pairs = osl_parts(blocks, 2);
        const uint8_t *data = w->data + block * bytes;
        for (int32_t from = 0; from < a->tokens; from += share) {
            const int32_t until = a->tokens - from < share ? a->tokens : from + share;
            for (int32_t i = 0; i < pairs; i++)
                memset(tile[i], 0, sizeof *tile[i] * (size_t)(until - from));
            for (int32_t c = 0; c < chunks; c++) {
                // Each block's next unit; at its end, the first unit of the block a group later.
                const size_t at = (size_t)c * OSL_INT4_BYTES;
                const size_t ahead =
                    OSL_INT4_BYTES + (c + 1 < chunks ? 0 : bytes * (OSL_GROUP - 1));
                for (int32_t b = 0; b < blocks; b++)
                    osl_widen(data + b * bytes + at, ahead, (int8_t *)wide[b]);
                for (int32_t start = from; start < until; start += 2 * m) {
                    const part p = take(start, until, m);
                    for (int32_t i = 0; i < pairs; i++) {
                        const pair now = take_pair(wide[0], sizeof *wide, i, blocks);
                        add_group(now.w[0], now.w[1], a, p, m, OSL_INT4_COLS, c,
                                  tile[i] + (start - from), (fetch){NULL, 0});
                    }
                }
            }
            osl_emit_avx512(w, out, block, blocks, from, until - from, tile[0], WIDE_TOKENS);
        }
    }
    _tile_release();
}

static void amx_bf16(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                     int32_t last) {
    if (a->tokens <= OSL_FEW) {
        osl_bf16_avx512bf16(w, a, out, first, last);
        return;
    }
    const int32_t m = osl_part(a->tokens, TILE), steps = osl_padded(a->cols, 32) / 32;
    const int64_t bytes = (int64_t)steps * TILE_BYTES, stride = a->stride * 2;
    const int32_t parts = osl_parts(a->tokens, 2 * m);
    _Alignas(64) osl_tile tile[GROUP_PAIRS][2 * TILE];
    configure(m);
    for (int32_t block = first; block < last; block += OSL_GROUP) {
        const int32_t blocks = last - block < OSL_GROUP ? last - block : OSL_GROUP;
        const uint8_t *data = w->data + block * bytes;
        for (int32_t start = 0; start < a->tokens; start += 2 * m) {
            const part p = take(start, a->tokens, m);
            const uint8_t *x = (const uint8_t *)a->values + p.token * stride;
            for (int32_t i = 0; i < osl_parts(blocks, 2); i++) {
                const pair at = take_pair(data, bytes, i, blocks);
                const fetch next =
                    fetch_next(at.w[0] + OSL_GROUP * bytes, bytes, start / (2 * m), parts);
                if (p.second) {
                    multiply_bf16(at.w[0], at.w[1], x, x + p.second * stride, stride, steps, next);
                    store(tile[i], p.second);
                } else {
                    multiply_bf16_one(at.w[0], at.w[1], x, stride, steps, next);
                    store(tile[i], m);
                    for (int32_t t = 0; t < m; t++)
                        for (int b = 0; b < OSL_PAIR; b++)
                            tile[i][t][b] += tile[i][m + t][b];
                }
            }
            osl_emit_avx512(w, out, block, blocks, start, p.n, tile[0] + p.done, 2 * TILE);
        }
    }
    _tile_release();
}

const osl_kernels osl_kernels_amx = {
    "amx",
    osl_fill_avx512,
    {[OSL_BF16] = amx_bf16,
     [OSL_INT8] = amx_int8,
     [OSL_INT4] = amx_int4,
     [OSL_Q8_0] = osl_few_avx512,
     [OSL_Q4_0] = osl_few_avx512},
};

OSL_AVX512_END
#endif
