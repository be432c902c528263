// Images to what a vision tower takes, one channel at a time; native/pixels.py says what the calls
// take. Each gives bit for bit what numpy or Pillow gives.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

// The compiler makes of a vector what the processor has. The levels between the two directions
// have 16 bits: eight of them widen in one instruction.
enum { LANES = 8 };
typedef int32_t osl_sums __attribute__((vector_size(4 * LANES)));
typedef uint16_t osl_wide __attribute__((vector_size(2 * LANES)));

// So many rows are resized side by side, and then so many columns: what registers hold.
enum { ROWS = 4 * LANES, COLUMNS = 8 * LANES };
// Pillow's weights are whole numbers with this many bits behind the point.
enum { WEIGHT_BITS = 22, HALF = 1 << (WEIGHT_BITS - 1) };

typedef struct {
    const uint8_t *levels;
    int32_t height, width;
    int64_t row_step, column_step; // in bytes
} osl_channel;

// From pixel `first[i]` of the padded image on, `taps` weights make pixel i of the square.
typedef struct {
    int32_t side, taps;
    const int32_t *first;   // [side]
    const int32_t *weights; // [side][taps]
} osl_weights;

OSL_API void osl_levels(const float *values, int64_t count, float low, float high, float extent,
                        int32_t inverted, uint8_t *levels);
OSL_API int32_t osl_square(const osl_channel *image, int32_t top, int32_t left,
                           const osl_weights *weights, uint8_t *square);
OSL_API void osl_looked_up(const uint8_t *levels, int64_t count, int64_t step, const float *table,
                           float *out);

OSL_CLONES void osl_levels(const float *values, int64_t count, float low, float high, float extent,
                           int32_t inverted, uint8_t *levels) {
    for (int64_t i = 0; i < count; i++) {
        float value = values[i] > low ? values[i] : low;
        float unit = ((value < high ? value : high) - low) / extent;
        unit = inverted ? 1.0f - unit : unit;
        levels[i] = (uint8_t)(int32_t)rintf(unit * 255.0f);
    }
}

// One pixel of the square from a line of `size` pixels, `before` of padding in front of it, for
// `vectors` vectors of lines at once. Pixel i of the lines is at pixels + i * step.
static inline __attribute__((always_inline)) void resize(const osl_weights *weights, int32_t place,
                                                         int32_t before, int32_t size,
                                                         const uint16_t *pixels, int64_t step,
                                                         int32_t vectors, uint16_t *out) {
    const int32_t *tap = weights->weights + (int64_t)place * weights->taps;
    int32_t first = weights->first[place] - before;
    // Padding is black, and adds nothing.
    int32_t from = first < 0 ? -first : 0;
    int32_t until = first + weights->taps > size ? size - first : weights->taps;
    osl_sums sums[COLUMNS / LANES];
    for (int32_t v = 0; v < vectors; v++)
        sums[v] = (osl_sums){0} + HALF;
    for (int32_t t = from; t < until; t++)
        for (int32_t v = 0; v < vectors; v++) {
            osl_wide wide;
            memcpy(&wide, pixels + (first + t) * step + v * LANES, sizeof wide);
            sums[v] += __builtin_convertvector(wide, osl_sums) * tap[t];
        }
    for (int32_t v = 0; v < vectors; v++) {
        osl_sums level = sums[v] >> WEIGHT_BITS;
        level &= level >= 0;
        level = (level & (level < 256)) | ((level >= 256) & 255);
        osl_wide wide = __builtin_convertvector(level, osl_wide);
        memcpy(out + v * LANES, &wide, sizeof wide);
    }
}

// Rows become as wide as the square. columns: [width][ROWS]; rows: [height][stride], with room for
// a multiple of ROWS.
OSL_CLONES static void resize_across(const osl_channel *image, int32_t left,
                                     const osl_weights *weights, int64_t stride, uint16_t *columns,
                                     uint16_t *rows) {
    for (int32_t y = 0; y < image->height; y += ROWS) {
        int32_t count = image->height - y < ROWS ? image->height - y : ROWS;
        for (int32_t r = 0; r < count; r++) {
            const uint8_t *row = image->levels + (y + r) * image->row_step;
            for (int32_t x = 0; x < image->width; x++)
                columns[(int64_t)x * ROWS + r] = row[x * image->column_step];
        }
        for (int32_t x = 0; x < weights->side; x++) {
            uint16_t column[ROWS];
            resize(weights, x, left, image->width, columns, ROWS, ROWS / LANES, column);
            for (int32_t r = 0; r < ROWS; r++)
                rows[(y + r) * stride + x] = column[r];
        }
    }
}

OSL_CLONES static void resize_down(const uint16_t *rows, int32_t height, int64_t stride,
                                   int32_t top, const osl_weights *weights, uint8_t *square) {
    int32_t side = weights->side;
    for (int32_t y = 0; y < side; y++)
        for (int32_t x = 0; x < side; x += COLUMNS) {
            uint16_t row[COLUMNS];
            resize(weights, y, top, height, rows + x, stride, COLUMNS / LANES, row);
            int32_t count = side - x < COLUMNS ? side - x : COLUMNS;
            for (int32_t c = 0; c < count; c++)
                square[(int64_t)y * side + x + c] = (uint8_t)row[c];
        }
}

// Returns 0 where memory does not last.
int32_t osl_square(const osl_channel *image, int32_t top, int32_t left, const osl_weights *weights,
                   uint8_t *square) {
    size_t stride = ((size_t)weights->side + COLUMNS - 1) / COLUMNS * COLUMNS;
    size_t height = ((size_t)image->height + ROWS - 1) / ROWS * ROWS;
    // Zeros, as rows and columns beyond the last are resized with the others, and not used.
    uint16_t *columns = calloc((size_t)image->width, ROWS * sizeof *columns);
    uint16_t *rows = calloc(height, stride * sizeof *rows);
    int32_t is_done = columns && rows;
    if (is_done) {
        resize_across(image, left, weights, (int64_t)stride, columns, rows);
        resize_down(rows, image->height, (int64_t)stride, top, weights, square);
    }
    free(columns);
    free(rows);
    return is_done;
}

OSL_CLONES void osl_looked_up(const uint8_t *levels, int64_t count, int64_t step,
                              const float *table, float *out) {
    for (int64_t i = 0; i < count; i++)
        out[i] = table[levels[i * step]];
}
