// Many tokens with AVX2. A row block's columns are widened once, some hundred at a time, and then
// multiplied with a few tokens at once: six of bf16, whose 12 sums leave just enough registers for
// the factors, and four of integers, which need registers for products as well.
//
// What a panel holds, [step][16 rows]:
//   OSL_INT4  uint8 [4 columns], the nibbles as they are, beside the multipliers of 8 groups: 8
//             products of 2 columns fit in 16 bits, so that only one instruction in eight is
//             spent on widening sums;
//   OSL_INT8  int16 [2 columns], of each 4 columns first 0 and 2, then 1 and 3; so are the tokens;
//   OSL_BF16  float32.
#include "linear_avx2.h"

#ifdef OSL_X86

#include <stdbool.h>

enum {
    ROWS = OSL_ROW_BLOCK,
    FOUR = 4, SIX = 6, // tokens at once,
    TOKENS = 48,       // and with one panel
    BLOCKS = 8,        // row blocks that share the widened tokens
    PANEL_BYTES = 4096,
    GROUPS = 8, // of OSL_INT4 in a chunk
};

// A thread's memory: 65 kB, which stay in its second cache.
typedef struct {
    _Alignas(64) uint8_t panel[PANEL_BYTES];
    __m256i factor[GROUPS][2], whole[SIX][2];
    union {
        int16_t pairs[TOKENS][128];
        float floats[TOKENS][64];
        int32_t start[TOKENS][GROUPS];
    } x;
    int32_t sum[BLOCKS][TOKENS][ROWS]; // OSL_INT8: of a group that goes on in the next chunk
    osl_tile total[BLOCKS / 2][TOKENS];
} room;

// Where a chunk of columns lies among those of a matrix.
typedef struct {
    int32_t first, columns; // columns: padded, a multiple of 32
    int32_t group;
    bool begins, ends; // the group
} chunk;

OSL_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256(p);
}

OSL_INLINE void store(void *p, __m256i v) {
    _mm256_storeu_si256(p, v);
}

OSL_INLINE __m256i word(const void *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

// Keeps the compiler from multiplying ahead, for which it would move sums to memory.
#define IN_TURN(sums) __asm__("" : "+x"((sums)[0]), "+x"((sums)[1]))

// While a panel is used, the next one is fetched, and likewise the tokens' next columns: processors
// do not foresee so short stretches.
static void fetch(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

static void fetch_tokens(const osl_acts *a, int32_t column, int32_t columns, int32_t token,
                         int32_t n) {
    const int64_t each = a->format == OSL_BF16 ? 2 : 1;
    const uint8_t *x = (const uint8_t *)a->values + (token * a->stride + column) * each;
    for (int32_t t = 0; t < n; t++, x += a->stride * each)
        fetch(x, (size_t)(columns * each));
}

// ------------------------------------------------------------------ int4

static void widen_int4(room *r, const uint8_t *p, int32_t columns) {
    (void)columns; // always 256
    const __m256i fifteen = _mm256_set1_epi8(15), one = _mm256_set1_epi32(1);
    uint8_t *to = r->panel;
    for (int i = 0; i < 4 * GROUPS; i++, p += 64, to += 128)
        for (int h = 0; h < 64; h += 32) {
            __m256i both = load(p + h);
            store(to + h, _mm256_and_si256(both, fifteen));
            store(to + 64 + h, _mm256_and_si256(_mm256_srli_epi16(both, 4), fifteen));
        }
    for (int g = 0; g < GROUPS; g++, p += 8) {
        __m256i m = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
        __m256i low = _mm256_add_epi32(_mm256_and_si256(m, _mm256_set1_epi32(15)), one);
        __m256i high = _mm256_add_epi32(_mm256_srli_epi32(m, 4), one);
        // Sums are of even and of odd pairs of columns, in the halves of a word.
        r->factor[g][0] = _mm256_or_si256(low, _mm256_slli_epi32(low, 16));
        r->factor[g][1] = _mm256_or_si256(high, _mm256_slli_epi32(high, 16));
    }
}

// Nibbles are 8 too large; what that adds up to is where the lower halves begin.
static void prepare_int4(room *r, const osl_acts *a, const chunk *c, int32_t token, int32_t n) {
    const int64_t each = (int64_t)(a->cols + 255) / 256 * GROUPS;
    const __m256i lower = _mm256_set1_epi32(0xffff);
    for (int32_t t = 0; t < n; t++) {
        __m256i sum = load(a->sum + (token + t) * each + (int64_t)c->group * GROUPS);
        __m256i start = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum, 3));
        store(r->x.start[t], _mm256_and_si256(start, lower));
    }
}

OSL_INLINE void tile_int4(room *r, const int8_t *x, int64_t stride,
                          const int32_t (*start)[GROUPS], const float *scale, int64_t scales,
                          float *total, const int n) {
    for (int g = 0; g < GROUPS; g++) {
        __m256i i[SIX][2];
        const uint8_t *w = r->panel + 512 * g;
        for (int t = 0; t < n; t++)
            i[t][0] = i[t][1] = word(&start[t][g]);
#pragma GCC unroll 2
        for (int l = 0; l < 8; l++) {
            const __m256i w0 = load(w + 64 * l), w1 = load(w + 64 * l + 32);
#pragma GCC unroll 4
            for (int t = 0; t < n; t++) {
                const __m256i four = word(x + t * stride + 32 * g + 4 * l);
                i[t][0] = _mm256_add_epi16(i[t][0], _mm256_maddubs_epi16(w0, four));
                i[t][1] = _mm256_add_epi16(i[t][1], _mm256_maddubs_epi16(w1, four));
                IN_TURN(i[t]);
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < n; t++)
            for (int h = 0; h < 2; h++) {
                __m256i part = _mm256_madd_epi16(i[t][h], r->factor[g][h]);
                r->whole[t][h] = g ? _mm256_add_epi32(r->whole[t][h], part) : part;
            }
        __asm__ volatile("" ::: "memory"); // or these sums take the others' registers
    }
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2; h++) {
            float *to = total + t * 2 * ROWS + 8 * h;
            _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(r->whole[t][h]),
                                                 _mm256_set1_ps(scale[t * scales]),
                                                 _mm256_loadu_ps(to)));
        }
}

// ------------------------------------------------------------------ int8

// The even bytes of v as int16, then the odd ones.
OSL_INLINE void split(__m256i v, void *even, void *odd) {
    store(even, _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
    store(odd, _mm256_srai_epi16(v, 8));
}

static void widen_int8(room *r, const uint8_t *p, int32_t columns) {
    uint8_t *to = r->panel;
    for (int32_t c = 0; c < columns; c += 4, p += 64, to += 128)
        for (int h = 0; h < 64; h += 32)
            split(load(p + h), to + h, to + 64 + h);
}

static void prepare_int8(room *r, const osl_acts *a, const chunk *c, int32_t token, int32_t n) {
    const int8_t *x = (const int8_t *)a->values + token * a->stride + c->first;
    const int64_t stride = a->stride;
    const int32_t columns = c->columns;
    for (int32_t t = 0; t < n; t++, x += stride)
        for (int32_t i = 0; i < columns; i += 32)
            split(load(x + i), r->x.pairs[t] + i, r->x.pairs[t] + i + 16);
}

OSL_INLINE void tile_int8(const room *r, const int16_t (*x)[128], const chunk *c,
                          const float *scale, int64_t scales, int32_t (*sum)[ROWS], float *total,
                          const int n) {
    __m256i i[SIX][2];
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2; h++)
            i[t][h] = c->begins ? _mm256_setzero_si256() : load(sum[t] + 8 * h);
    const uint8_t *w = r->panel;
    for (int32_t at = 0; at < c->columns; at += 32)
#pragma GCC unroll 2
        for (int l = 0; l < 8; l++, w += 128)
#pragma GCC unroll 2
            for (int o = 0; o < 2; o++) {
                const __m256i w0 = load(w + 64 * o), w1 = load(w + 64 * o + 32);
#pragma GCC unroll 4
                for (int t = 0; t < n; t++) {
                    const __m256i two = word(x[t] + at + 16 * o + 2 * l);
                    i[t][0] = _mm256_add_epi32(i[t][0], _mm256_madd_epi16(w0, two));
                    i[t][1] = _mm256_add_epi32(i[t][1], _mm256_madd_epi16(w1, two));
                    IN_TURN(i[t]);
                }
            }
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2; h++) {
            float *to = total + t * 2 * ROWS + 8 * h;
            if (!c->ends)
                store(sum[t] + 8 * h, i[t][h]);
            else
                _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(i[t][h]),
                                                     _mm256_set1_ps(scale[t * scales]),
                                                     _mm256_loadu_ps(to)));
        }
}

// ------------------------------------------------------------------ bf16

static void widen_bf16(room *r, const uint8_t *p, int32_t columns) {
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    uint8_t *to = r->panel;
    for (int32_t c = 0; c < columns; c += 2, p += 64, to += 128)
        for (int h = 0; h < 64; h += 32) {
            __m256i both = load(p + h);
            store(to + h, _mm256_slli_epi32(both, 16));
            store(to + 64 + h, _mm256_and_si256(both, upper));
        }
}

static void prepare_bf16(room *r, const osl_acts *a, const chunk *c, int32_t token, int32_t n) {
    const osl_bf16 *x = (const osl_bf16 *)a->values + token * a->stride + c->first;
    const int64_t stride = a->stride;
    const int32_t columns = c->columns;
    for (int32_t t = 0; t < n; t++, x += stride)
        for (int32_t i = 0; i < columns; i += 32)
#pragma GCC unroll 4
            for (int32_t j = i; j < i + 32; j += 8) {
                __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(x + j)));
                store(r->x.floats[t] + j, _mm256_slli_epi32(wide, 16));
            }
}

OSL_INLINE void tile_bf16(const room *r, const float (*x)[64], int32_t columns, float *total,
                          const int n) {
    __m256 f[SIX][2];
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2; h++)
            f[t][h] = _mm256_loadu_ps(total + t * 2 * ROWS + 8 * h);
    const float *w = (const float *)(const void *)r->panel;
    for (int32_t at = 0; at < columns; at += 4)
#pragma GCC unroll 4
        for (int l = 0; l < 4; l++, w += ROWS) {
            const __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);
#pragma GCC unroll 6
            for (int t = 0; t < n; t++) {
                const __m256 one = _mm256_set1_ps(x[t][at + l]);
                f[t][0] = _mm256_fmadd_ps(w0, one, f[t][0]);
                f[t][1] = _mm256_fmadd_ps(w1, one, f[t][1]);
                IN_TURN(f[t]);
            }
        }
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_ps(total + t * 2 * ROWS + 8 * h, f[t][h]);
}

// ------------------------------------------------------------------ all of it

// One panel by tokens [at, at + n) of the room's, which are those of `a` from `token` on.
OSL_INLINE void tile(room *r, const osl_acts *a, const chunk *c, int32_t token, int32_t at,
                     int32_t block, const int format, const int n) {
    float *total = r->total[block / 2][at] + block % 2 * ROWS;
    const int64_t scales = a->group ? (a->cols + a->group - 1) / a->group : 0;
    const float *scale = a->scale + (token + at) * scales + c->group;
    const int8_t *x = (const int8_t *)a->values + (token + at) * a->stride + c->first;
    if (format == OSL_INT4)
        tile_int4(r, x, a->stride, r->x.start + at, scale, scales, total, n);
    else if (format == OSL_INT8)
        tile_int8(r, r->x.pairs + at, c, scale, scales, r->sum[block] + at, total, n);
    else
        tile_bf16(r, r->x.floats + at, c->columns, total, n);
}

// As many tokens as there are, some at a time. One function for each format, which is not to share
// its registers with what calls it.
#define TILES(name, format, at_once)                                                               \
    static __attribute__((noinline)) void name(room *r, const osl_acts *a, const chunk *c,         \
                                               int32_t token, int32_t tokens, int32_t block) {     \
        int32_t at = 0;                                                                            \
        for (; at + at_once <= tokens; at += at_once)                                              \
            tile(r, a, c, token, at, block, format, at_once);                                      \
        for (; at + 2 <= tokens; at += 2)                                                          \
            tile(r, a, c, token, at, block, format, 2);                                            \
        if (at < tokens)                                                                           \
            tile(r, a, c, token, at, block, format, 1);                                            \
    }
TILES(tiles_int4, OSL_INT4, FOUR)
TILES(tiles_int8, OSL_INT8, FOUR)
TILES(tiles_bf16, OSL_BF16, SIX)

// What is done for a format.
typedef struct {
    int32_t columns; // of a panel at most
    void (*prepare)(room *r, const osl_acts *a, const chunk *c, int32_t token, int32_t n);
    void (*widen)(room *r, const uint8_t *p, int32_t columns);
    void (*tiles)(room *r, const osl_acts *a, const chunk *c, int32_t token, int32_t tokens,
                  int32_t block);
} kind;

static const kind of_int4 = {256, prepare_int4, widen_int4, tiles_int4},
                  of_int8 = {128, prepare_int8, widen_int8, tiles_int8},
                  of_bf16 = {64, prepare_bf16, widen_bf16, tiles_bf16};

// The columns from `first` on that fit in a panel; a group of 0 columns is all of them.
static chunk take(const osl_matrix *w, int32_t first, int32_t most, int32_t cols) {
    const int32_t group = w->group ? w->group : cols, left = cols - first;
    const int32_t n = left < most ? left : most;
    return (chunk){.first = first,
                   .columns = n,
                   .group = first / group,
                   .begins = first % group == 0,
                   .ends = n == left || (first + n) % group == 0};
}

static void many(const kind *k, const osl_matrix *w, const osl_acts *a, const osl_out *out,
                 int32_t first, int32_t last) {
    const size_t bytes = osl_packed_bytes(w->format, ROWS, w->cols);
    const size_t step = osl_packed_bytes(w->format, ROWS, k->columns);
    const int32_t unit = osl_column_unit(w->format), cols = (w->cols + unit - 1) / unit * unit;
    room r;
    for (int32_t block = first; block < last; block += BLOCKS) {
        const int32_t blocks = last - block < BLOCKS ? last - block : BLOCKS;
        for (int32_t token = 0; token < a->tokens; token += TOKENS) {
            const int32_t n = a->tokens - token < TOKENS ? a->tokens - token : TOKENS;
            memset(r.total, 0, sizeof r.total);
            const uint8_t *p = w->data + block * bytes;
            for (int32_t column = 0; column < cols; column += k->columns, p += step) {
                const chunk c = take(w, column, k->columns, cols);
                k->prepare(&r, a, &c, token, n);
                fetch_tokens(a, column + k->columns, k->columns, token, n);
                for (int32_t b = 0; b < blocks; b++) {
                    k->widen(&r, p + b * bytes, c.columns);
                    fetch(b + 1 < blocks ? p + (b + 1) * bytes : p + step,
                          osl_packed_bytes(w->format, ROWS, c.columns));
                    k->tiles(&r, a, &c, token, n, b);
                }
            }
            osl_emit_avx2(w, out, block, blocks, token, n, r.total[0], TOKENS);
        }
    }
}

void osl_int4_avx2_many(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                        int32_t last) {
    many(&of_int4, w, a, out, first, last);
}

void osl_int8_avx2_many(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                        int32_t last) {
    many(&of_int8, w, a, out, first, last);
}

void osl_bf16_avx2_many(const osl_matrix *w, const osl_acts *a, const osl_out *out, int32_t first,
                        int32_t last) {
    many(&of_bf16, w, a, out, first, last);
}

OSL_AVX2_END
#endif
