// From plain weights to the layouts of linear.h and back, a row block at a time over the pool.
#ifndef OSL_PACK_H
#define OSL_PACK_H

#include "linear.h"

typedef enum { OSL_FROM_FLOAT = 0, OSL_FROM_BF16 = 1 } osl_source_type;

// What is to be packed: rows of `ld` values.
typedef struct {
    int32_t type, rows, cols;
    int64_t ld;
    const void *values;
} osl_source;

// In all of these, `data` has osl_packed_bytes() and `row_scale` one float for each padded row.

// Rounds to nearest. OSL_INT8: scale = max|w| / 127 of a row. OSL_INT4: scale of a group of 32 is
// max|w| / 7, rounded up to a multiple of a 16th of the row's largest. Only OSL_BF16 (`row_scale`
// NULL), OSL_INT8 and OSL_INT4; nothing is done for others. A row with an infinity or a NaN gets
// the scale NaN.
OSL_API void osl_pack(osl_pool *pool, int32_t format, const osl_source *w, uint8_t *data,
                      float *row_scale);

// OSL_INT4 from what it holds: values -8 to 7, [rows][cols], and multipliers 1 to 16,
// [rows][groups of 32 columns].
OSL_API void osl_pack_int4(osl_pool *pool, int32_t rows, int32_t cols, const int8_t *values,
                           const uint8_t *multipliers, uint8_t *data);

// OSL_Q8_0 and OSL_Q4_0 from the blocks of a GGUF file, [rows][cols / 32]; without loss. `cols` is
// a multiple of 32.
OSL_API void osl_pack_gguf(osl_pool *pool, int32_t format, int32_t rows, int32_t cols,
                           const uint8_t *blocks, uint8_t *data);

// The weights as float32 [rows][cols].
OSL_API void osl_unpack(osl_pool *pool, const osl_matrix *w, float *values);

#endif
