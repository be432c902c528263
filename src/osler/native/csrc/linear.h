// y = x W^T + b: the product that everything else is made of.
//
// WEIGHTS. Rows are outputs, columns are inputs. Rows are interleaved by 16, so that one 512-bit
// register holds one 32-bit word of each of 16 rows and no sum runs across a register. The packed
// data is [row blocks of 16][columns] in the units below; rows are padded with zeros to a multiple
// of 16 and columns to a multiple of osl_column_unit(): 32 for OSL_BF16, OSL_Q4_0 and OSL_Q8_0, 64
// for OSL_INT8, 256 for OSL_INT4. All data starts on a 64-byte boundary.
//
//   OSL_BF16  per 2 columns:   bf16 [16 rows][2 columns]                              64 bytes
//   OSL_INT8  per 4 columns:   int8 [16 rows][4 columns]                              64 bytes
//             w = row_scale[row] * value
//   OSL_INT4  per 256 columns: nibbles of 8 groups of 32 columns (256 bytes each), then the
//             multipliers of the 8 groups (8 bytes each)                            2112 bytes
//             In a group: byte 64 l + 4 r + e holds column 8 l + e of row r in its low nibble and
//             column 8 l + 4 + e in its high nibble (l 0..3, r 0..15, e 0..3), each plus 8.
//             Multipliers: byte i holds row i in its low nibble and row i + 8 in its high nibble,
//             each minus 1 (so 1 to 16).
//             w = row_scale[row] * multiplier * (nibble - 8); multiplier * (nibble - 8) is an
//             int8, so a panel of weights can be widened once and multiplied without any scale.
//   OSL_Q4_0  per 32 columns:  nibbles of one group as above, then fp16 scale[16]       288 bytes
//   OSL_Q8_0  per 32 columns:  int8 [8][16 rows][4 columns], then fp16 scale[16]        544 bytes
//             both: w = scale[row] * value, exactly GGUF's
//
// ACTIVATIONS are float32 rows, and are converted once a product:
//   for OSL_BF16 to bf16 (round to nearest even);
//   for the others to int8 with one scale per token and group of columns, scale = max|x| / 127,
//   value = round to nearest even (x * (1 / scale)), all in float32, so that every processor gets
//   the same values; where max|x| < 2^-100 (no reciprocal then), values and scale are 0; where the
//   group holds an infinity or a NaN, values are 0 and scale is NaN, so that the product tells.
//   The group is 32 columns for OSL_Q4_0 and OSL_Q8_0; for OSL_INT4 256; for OSL_INT8 256 or, where
//   the matrix says so, all columns.
// Sums of int8 products are exact in int32 within a group; groups are added in float32.
#ifndef OSL_LINEAR_H
#define OSL_LINEAR_H

#include <stddef.h>
#include <stdint.h>

#include "common.h"
#include "pool.h"

enum { OSL_ROW_BLOCK = 16 };

typedef enum { OSL_BF16 = 0, OSL_INT8 = 1, OSL_INT4 = 2, OSL_Q8_0 = 3, OSL_Q4_0 = 4 } osl_format;

typedef struct {
    int32_t format;
    int32_t rows, cols;     // as the model has them, before padding
    int32_t group;          // columns that share an activation scale; 0 for OSL_BF16
    const uint8_t *data;    // packed
    const float *row_scale; // OSL_INT8, OSL_INT4: one a row, padded rows too
} osl_matrix;

// What happens to a product on its way out; y is float32 [tokens][ldy].
typedef enum {
    OSL_STORE = 0, // y = v
    OSL_ADD = 1,   // y += v
    OSL_GELU = 2,  // y = gelu_tanh(v)
    // Row blocks come in pairs: 16 of the gate, then the same 16 of the up projection.
    // y[16 i + r] = gelu_tanh(gate) * up, so y has half as many columns as the matrix has rows,
    // which are a multiple of 32.
    OSL_GEGLU = 3,
} osl_out_kind;

typedef struct {
    int32_t kind;
    int64_t ldy;
    float *y;
    const float *bias; // one a row, or NULL
} osl_out;

typedef struct {
    int32_t format, tokens, cols, group;
    int64_t stride;  // values from one token to the next: the columns padded as the weights' are,
                     // then to a multiple of 64; the padding is zero
    void *values;    // bf16 or int8 [tokens][stride]
    float *scale;    // int8: [tokens][groups]
    int32_t *sum;    // int8: [tokens][groups], sum of the values; for OSL_INT4 one for each 32
                     // columns, [tokens][8 * groups]
} osl_acts;

// Columns of packed weights come in multiples of this.
OSL_API int32_t osl_column_unit(int32_t format);

// Bytes of the packed form.
OSL_API size_t osl_packed_bytes(int32_t format, int32_t rows, int32_t cols);

// Bytes that osl_acts_place() needs for so many tokens, at 64-byte alignment.
OSL_API size_t osl_acts_bytes(const osl_matrix *w, int32_t tokens);

// Lays out activations for a matrix in `memory`.
osl_acts osl_acts_place(const osl_matrix *w, int32_t tokens, void *memory);

// Converts tokens [first, last) of x [tokens][ldx]; one thread's share.
void osl_acts_fill(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last);

// Multiplies row blocks [first, last); one thread's share (for OSL_GEGLU both even).
void osl_multiply(const osl_matrix *w, const osl_acts *acts, const osl_out *out, int32_t first,
                  int32_t last);

// The whole product over a pool: convert, wait, multiply. `memory` as osl_acts_bytes() says.
OSL_API void osl_linear(osl_pool *pool, const osl_matrix *w, const float *x, int64_t ldx,
                        int32_t tokens, const osl_out *out, void *memory);

#endif
