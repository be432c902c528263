#include "pack.h"

#include <math.h>

enum { ROWS = OSL_ROW_BLOCK, WIDTH = 256, GROUP = 32, GROUPS = WIDTH / GROUP, CHUNK = 4 };

typedef struct {
    int32_t format, rows, cols;
    const osl_source *source;
    const int8_t *values;
    const uint8_t *multipliers, *blocks;
    uint8_t *data;
    float *row_scale;
} job;

static int32_t least(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static void run(osl_pool *pool, int32_t rows, osl_work *work, void *context) {
    osl_pool_run(pool, (rows + ROWS - 1) / ROWS, CHUNK, work, context);
}

// Columns [first, first + WIDTH) of a row; zeros beyond the matrix.
static void fetch(const osl_source *w, int32_t row, int32_t first, float out[WIDTH]) {
    int32_t n = row < w->rows ? least(w->cols - first, WIDTH) : 0;
    int64_t start = row * w->ld + first;
    if (w->type == OSL_FROM_FLOAT)
        memcpy(out, (const float *)w->values + start, sizeof(float) * (size_t)n);
    else
        for (int32_t i = 0; i < n; i++)
            out[i] = osl_bf16_to_float(((const osl_bf16 *)w->values)[start + i]);
    memset(out + n, 0, sizeof(float) * (size_t)(WIDTH - n));
}

// The largest magnitude; NaN where something is not finite.
static float largest(const float *x, int32_t n) {
    uint32_t bits = 0;
    for (int32_t i = 0; i < n; i++) {
        uint32_t magnitude = osl_bits(x[i]) & 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
    }
    return bits < 0x7f800000 ? osl_float(bits) : NAN;
}

// The largest magnitude of a row divided by `levels`, as a scale; 0 where there is none to speak
// of.
static float scale_of_row(const osl_source *w, int32_t row, float levels) {
    float max = 0, x[WIDTH];
    for (int32_t first = 0; first < w->cols; first += WIDTH) {
        fetch(w, row, first, x);
        float one = largest(x, WIDTH);
        max = one <= max ? max : one; // NaN wins,
        if (max != max)
            break; // and stays
    }
    return max < 0x1p-100f ? 0 : max / levels;
}

static int8_t nearest(float x, float inverse, int32_t low, int32_t high) {
    float value = x * inverse;
    return (int8_t)(value <= (float)low ? low : value >= (float)high ? high : lrintf(value));
}

static float inverse_of(float scale) {
    return scale > 0 && isfinite(scale) ? 1 / scale : 0;
}

// ------------------------------------------------------------------ bf16, int8

static void pack_bf16(void *context, int32_t thread, int32_t first, int32_t last) {
    const job *j = context;
    int32_t unit = osl_column_unit(OSL_BF16), cols = (j->cols + unit - 1) / unit * unit;
    float x[WIDTH];
    (void)thread;
    for (int32_t block = first; block < last; block++)
        for (int32_t c = 0; c < cols; c += WIDTH)
            for (int32_t r = 0; r < ROWS; r++) {
                osl_bf16 *out = (osl_bf16 *)j->data + ((int64_t)block * cols + c) * ROWS + 2 * r;
                fetch(j->source, block * ROWS + r, c, x);
                for (int32_t i = 0; i < least(cols - c, WIDTH); i++)
                    out[i / 2 * 2 * ROWS + i % 2] = osl_bf16_from_float(x[i]);
            }
}

static void pack_int8(void *context, int32_t thread, int32_t first, int32_t last) {
    const job *j = context;
    int32_t unit = osl_column_unit(OSL_INT8), cols = (j->cols + unit - 1) / unit * unit;
    float x[WIDTH];
    (void)thread;
    for (int32_t row = first * ROWS; row < last * ROWS; row++) {
        int32_t block = row / ROWS, r = row % ROWS;
        float scale = row < j->rows ? scale_of_row(j->source, row, 127) : 0;
        float inverse = inverse_of(scale);
        j->row_scale[row] = scale;
        for (int32_t c = 0; c < cols; c += WIDTH) {
            int8_t *out = (int8_t *)j->data + ((int64_t)block * cols + c) * ROWS + 4 * r;
            fetch(j->source, row, c, x);
            for (int32_t i = 0; i < least(cols - c, WIDTH); i++)
                out[i / 4 * 4 * ROWS + i % 4] = inverse > 0 ? nearest(x[i], inverse, -127, 127) : 0;
        }
    }
}

// ------------------------------------------------------------------ int4

static uint8_t *unit_int4(const job *j, int32_t block, int32_t column) {
    int64_t units = (j->cols + WIDTH - 1) / WIDTH;
    return j->data + (block * units + column / WIDTH) * 2112;
}

// One row of 32 columns into the nibbles of its group.
static void put_nibbles(uint8_t *group, int32_t r, const int8_t *values) {
    for (int l = 0; l < 4; l++)
        for (int e = 0; e < 4; e++) {
            int low = values[8 * l + e] + 8, high = values[8 * l + 4 + e] + 8;
            group[64 * l + 4 * r + e] = (uint8_t)(low | high << 4);
        }
}

static void put_int4(uint8_t *unit, int32_t r, const int8_t *values, const uint8_t *multipliers) {
    for (int g = 0; g < GROUPS; g++) {
        uint8_t *both = unit + GROUPS * 256 + 8 * g + r % 8;
        put_nibbles(unit + 256 * g, r, values + GROUP * g);
        // Rows 0 to 7 come first and clear what the others add.
        *both = (uint8_t)(r < 8 ? multipliers[g] - 1 : *both | (multipliers[g] - 1) << 4);
    }
}

static void round_int4(const float *x, float row_scale, int8_t *values, uint8_t *multipliers) {
    for (int g = 0; g < GROUPS; g++, x += GROUP, values += GROUP) {
        float wanted = largest(x, GROUP) / 7 * inverse_of(row_scale);
        // A little more than a whole number is a rounding error, not a larger group.
        int multiplier = !(wanted > 1) ? 1 : wanted > 15 ? 16 : (int)ceilf(wanted - 1e-4f);
        float inverse = inverse_of(row_scale * (float)multiplier);
        for (int i = 0; i < GROUP; i++)
            values[i] = inverse > 0 ? nearest(x[i], inverse, -8, 7) : 0;
        multipliers[g] = (uint8_t)multiplier;
    }
}

static void pack_int4(void *context, int32_t thread, int32_t first, int32_t last) {
    const job *j = context;
    float x[WIDTH];
    int8_t values[WIDTH];
    uint8_t multipliers[GROUPS];
    (void)thread;
    for (int32_t row = first * ROWS; row < last * ROWS; row++) {
        float scale = row < j->rows ? scale_of_row(j->source, row, 7 * 16) : 0;
        j->row_scale[row] = scale;
        for (int32_t c = 0; c < j->cols; c += WIDTH) {
            fetch(j->source, row, c, x);
            round_int4(x, scale, values, multipliers);
            put_int4(unit_int4(j, row / ROWS, c), row % ROWS, values, multipliers);
        }
    }
}

static void lay_out_int4(void *context, int32_t thread, int32_t first, int32_t last) {
    const job *j = context;
    int32_t groups = (j->cols + GROUP - 1) / GROUP;
    (void)thread;
    for (int32_t row = first * ROWS; row < last * ROWS; row++)
        for (int32_t c = 0; c < j->cols; c += WIDTH) {
            int8_t values[WIDTH] = {0};
            uint8_t multipliers[GROUPS] = {1, 1, 1, 1, 1, 1, 1, 1};
            if (row < j->rows) {
                int32_t g = c / GROUP;
                memcpy(values, j->values + (int64_t)row * j->cols + c,
                       (size_t)least(j->cols - c, WIDTH));
                memcpy(multipliers, j->multipliers + (int64_t)row * groups + g,
                       (size_t)least(groups - g, GROUPS));
            }
            put_int4(unit_int4(j, row / ROWS, c), row % ROWS, values, multipliers);
        }
}

// ------------------------------------------------------------------ GGUF

// GGUF: Q8_0 is an fp16 scale and 32 int8; Q4_0 an fp16 scale and 16 bytes, of which byte i holds
// column i in its low nibble and column 16 + i in its high nibble, each plus 8.
static void lay_out_gguf(void *context, int32_t thread, int32_t first, int32_t last) {
    const job *j = context;
    int32_t groups = j->cols / GROUP, wide = j->format == OSL_Q8_0;
    int64_t block_bytes = wide ? 34 : 18, unit_bytes = wide ? 544 : 288;
    static const uint8_t zeros[34];
    (void)thread;
    for (int32_t row = first * ROWS; row < last * ROWS; row++)
        for (int32_t g = 0; g < groups; g++) {
            int32_t r = row % ROWS;
            int64_t place = (int64_t)row * groups + g;
            const uint8_t *block = row < j->rows ? j->blocks + place * block_bytes : zeros;
            uint8_t *unit = j->data + ((int64_t)(row / ROWS) * groups + g) * unit_bytes;
            memcpy(unit + unit_bytes - 2 * ROWS + 2 * r, block, 2);
            if (wide) {
                for (int q = 0; q < GROUP / 4; q++)
                    memcpy(unit + 64 * q + 4 * r, block + 2 + 4 * q, 4);
                continue;
            }
            int8_t values[GROUP] = {0};
            for (int i = 0; i < 16 && row < j->rows; i++) {
                values[i] = (int8_t)((block[2 + i] & 15) - 8);
                values[16 + i] = (int8_t)((block[2 + i] >> 4) - 8);
            }
            put_nibbles(unit, r, values);
        }
}

// ------------------------------------------------------------------ back

typedef struct {
    const osl_matrix *w;
    float *values;
} unpacking;

static float half_at(const uint8_t *place) {
    osl_fp16 half;
    memcpy(&half, place, sizeof half);
    return osl_fp16_to_float(half);
}

// Columns [32 g, 32 g + 32) of a row, of which those beyond the matrix are padding.
static void unpack_group(const osl_matrix *w, int32_t row, int32_t g, float out[GROUP]) {
    int32_t unit = osl_column_unit(w->format), units = (w->cols + unit - 1) / unit, r = row % ROWS;
    int64_t first = (int64_t)(row / ROWS) * units; // unit of the row block
    const uint8_t *group, *nibbles = NULL;
    float scale;
    int multiplier = 1;
    switch (w->format) {
    case OSL_BF16:
        group = w->data + (first + g) * 1024 + 4 * r;
        for (int i = 0; i < GROUP; i++) {
            osl_bf16 value;
            memcpy(&value, group + i / 2 * 64 + i % 2 * 2, sizeof value);
            out[i] = osl_bf16_to_float(value);
        }
        return;
    case OSL_INT8:
        group = w->data + first * 1024 + (int64_t)g * 512;
        scale = w->row_scale[row];
        break;
    case OSL_INT4: {
        const uint8_t *data = w->data + (first + g / GROUPS) * 2112;
        uint8_t both = data[2048 + 8 * (g % GROUPS) + r % 8];
        group = nibbles = data + 256 * (g % GROUPS);
        scale = w->row_scale[row];
        multiplier = (r < 8 ? both & 15 : both >> 4) + 1;
        break;
    }
    case OSL_Q8_0:
        group = w->data + (first + g) * 544;
        scale = half_at(group + 512 + 2 * r);
        break;
    default:
        group = nibbles = w->data + (first + g) * 288;
        scale = half_at(group + 256 + 2 * r);
    }
    for (int i = 0; i < GROUP; i++) {
        if (nibbles) {
            uint8_t both = nibbles[i / 8 * 64 + 4 * r + i % 4];
            out[i] = scale * (float)(multiplier * ((i % 8 < 4 ? both & 15 : both >> 4) - 8));
        } else {
            out[i] = scale * (float)(int8_t)group[i / 4 * 64 + 4 * r + i % 4];
        }
    }
}

static void unpack(void *context, int32_t thread, int32_t first, int32_t last) {
    const unpacking *u = context;
    (void)thread;
    for (int32_t row = first * ROWS; row < least(last * ROWS, u->w->rows); row++)
        for (int32_t c = 0; c < u->w->cols; c += GROUP) {
            float group[GROUP];
            unpack_group(u->w, row, c / GROUP, group);
            memcpy(u->values + (int64_t)row * u->w->cols + c, group,
                   sizeof(float) * (size_t)least(u->w->cols - c, GROUP));
        }
}

// ------------------------------------------------------------------ calls

void osl_pack(osl_pool *pool, int32_t format, const osl_source *w, uint8_t *data,
              float *row_scale) {
    job j = {.format = format, .rows = w->rows, .cols = w->cols, .source = w, .data = data,
             .row_scale = row_scale};
    if (format == OSL_BF16)
        run(pool, w->rows, pack_bf16, &j);
    else if (format == OSL_INT8)
        run(pool, w->rows, pack_int8, &j);
    else if (format == OSL_INT4)
        run(pool, w->rows, pack_int4, &j);
}

void osl_pack_int4(osl_pool *pool, int32_t rows, int32_t cols, const int8_t *values,
                   const uint8_t *multipliers, uint8_t *data) {
    job j = {.format = OSL_INT4, .rows = rows, .cols = cols, .values = values,
             .multipliers = multipliers, .data = data};
    run(pool, rows, lay_out_int4, &j);
}

void osl_pack_gguf(osl_pool *pool, int32_t format, int32_t rows, int32_t cols,
                   const uint8_t *blocks, uint8_t *data) {
    job j = {.format = format, .rows = rows, .cols = cols, .blocks = blocks, .data = data};
    run(pool, rows, lay_out_gguf, &j);
}

void osl_unpack(osl_pool *pool, const osl_matrix *w, float *values) {
    unpacking u = {w, values};
    run(pool, w->rows, unpack, &u);
}
