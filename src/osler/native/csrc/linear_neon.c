// The linear layers for 64-bit ARM with the dot product extension (most cores since 2018), and
// with int8 and bf16 matrix products where the processor has them.
//
// A line of 64 bytes is four registers, each with 4 columns of 4 rows, so that one instruction
// multiplies them with 4 columns of a token from a lane of another register and adds to the sums of
// 4 rows. The matrix products want 8 columns of 2 rows, which two lines zipped together are.
#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>

#include "cpu.h"
#include "kernels.h"
#include "linear_blocks.h"

#if defined(__clang__)
#define TARGET_DOT __attribute__((target("dotprod")))
#define TARGET_MM __attribute__((target("i8mm,bf16,dotprod")))
#else
#define TARGET_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#define TARGET_MM __attribute__((target("arch=armv8.2-a+dotprod+i8mm+bf16")))
#endif
#define INLINE static inline __attribute__((always_inline))

enum { ROWS = OSL_ROW_BLOCK, QUARTERS = 4 };

// ------------------------------------------------------------------ activations

// As numbers the bits of magnitudes order as they do, with infinity and then NaN on top.
static float largest(const float *x, int32_t n) {
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff);
    uint32x4_t most = vdupq_n_u32(0);
    int32_t i = 0;
    for (; i + 4 <= n; i += 4)
        most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), magnitude));
    uint32_t bits = vmaxvq_u32(most);
    for (; i < n; i++) {
        uint32_t one = osl_bits(x[i]) & 0x7fffffff;
        bits = one > bits ? one : bits;
    }
    return osl_float(bits);
}

static void round_int8(const float *x, float inverse, int32_t n, int8_t *values) {
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), inverse));
        int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), inverse));
        vst1_s8(values + i, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
    }
    for (; i < n; i++)
        values[i] = (int8_t)lrintf(x[i] * inverse);
}

// ------------------------------------------------------------------ int8

// One line of 4 columns, which stand in lane `lane` of each token's register.
#define DOT_LINE(lane)                                                                             \
    for (int i = 0; i < QUARTERS; i++) {                                                           \
        int8x16_t w = vld1q_s8(line + 64 * (lane) + 16 * i);                                       \
        for (int t = 0; t < n; t++)                                                                \
            acc[t][i] = vdotq_laneq_s32(acc[t][i], w, xs[t], lane);                                \
    }

TARGET_DOT INLINE void dots_n(const int8_t *panel, int32_t columns, const int8_t *x, int64_t stride,
                              int32_t sum[OSL_TILE][ROWS], const int n) {
    int32x4_t acc[OSL_TILE][QUARTERS];
    for (int t = 0; t < n; t++)
        for (int i = 0; i < QUARTERS; i++)
            acc[t][i] = vdupq_n_s32(0);
    for (int32_t c = 0; c < columns; c += 16) {
        const int8_t *line = panel + (int64_t)c * ROWS;
        int8x16_t xs[OSL_TILE];
        for (int t = 0; t < n; t++)
            xs[t] = vld1q_s8(x + t * stride + c);
        DOT_LINE(0)
        DOT_LINE(1)
        DOT_LINE(2)
        DOT_LINE(3)
    }
    for (int t = 0; t < n; t++)
        for (int i = 0; i < QUARTERS; i++)
            vst1q_s32(sum[t] + 4 * i, acc[t][i]);
}

TARGET_DOT static void dots(const int8_t *panel, int32_t columns, const int8_t *x, int64_t stride,
                            int32_t tokens, int32_t sum[OSL_TILE][ROWS]) {
    switch (tokens) {
    case 1:
        dots_n(panel, columns, x, stride, sum, 1);
        break;
    case 2:
        dots_n(panel, columns, x, stride, sum, 2);
        break;
    case 3:
        dots_n(panel, columns, x, stride, sum, 3);
        break;
    default:
        dots_n(panel, columns, x, stride, sum, 4);
    }
}

// 2 rows by 8 columns times 8 columns by 2 tokens; a missing token is the last one again.
TARGET_MM static void dots_mm(const int8_t *panel, int32_t columns, const int8_t *x, int64_t stride,
                              int32_t tokens, int32_t sum[OSL_TILE][ROWS]) {
    if (tokens == 1) {
        dots_n(panel, columns, x, stride, sum, 1);
        return;
    }
    const int8_t *token[OSL_TILE];
    for (int t = 0; t < OSL_TILE; t++)
        token[t] = x + (t < tokens ? t : tokens - 1) * stride;
    int32x4_t acc[OSL_TILE / 2][2 * QUARTERS];
    for (int p = 0; p < OSL_TILE / 2; p++)
        for (int i = 0; i < 2 * QUARTERS; i++)
            acc[p][i] = vdupq_n_s32(0);
    for (int32_t c = 0; c < columns; c += 8) {
        const int8_t *line = panel + (int64_t)c * ROWS;
        int8x16_t xs[OSL_TILE / 2];
        for (int p = 0; p < OSL_TILE / 2; p++)
            xs[p] = vcombine_s8(vld1_s8(token[2 * p] + c), vld1_s8(token[2 * p + 1] + c));
        for (int i = 0; i < QUARTERS; i++) {
            int32x4_t left = vreinterpretq_s32_s8(vld1q_s8(line + 16 * i));
            int32x4_t right = vreinterpretq_s32_s8(vld1q_s8(line + 64 + 16 * i));
            int8x16_t low = vreinterpretq_s8_s32(vzip1q_s32(left, right));
            int8x16_t high = vreinterpretq_s8_s32(vzip2q_s32(left, right));
            for (int p = 0; p < OSL_TILE / 2; p++) {
                acc[p][2 * i] = vmmlaq_s32(acc[p][2 * i], low, xs[p]);
                acc[p][2 * i + 1] = vmmlaq_s32(acc[p][2 * i + 1], high, xs[p]);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < QUARTERS; i++) {
            int32x4_t low = acc[t / 2][2 * i], high = acc[t / 2][2 * i + 1];
            vst1q_s32(sum[t] + 4 * i, t % 2 ? vuzp2q_s32(low, high) : vuzp1q_s32(low, high));
        }
}

// ------------------------------------------------------------------ nibbles

// Each of 4 rows' multipliers for their 4 columns.
INLINE int8x16_t spread(const int8_t multiplier[ROWS], int quarter) {
    static const uint8_t places[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    uint8x16_t place = vaddq_u8(vld1q_u8(places), vdupq_n_u8((uint8_t)(4 * quarter)));
    return vqtbl1q_s8(vld1q_s8(multiplier), place);
}

static void widen(const uint8_t *nibbles, const int8_t multiplier[ROWS], int8_t *panel) {
    const int8x16_t eight = vdupq_n_s8(8);
    for (int i = 0; i < QUARTERS; i++) {
        int8x16_t times = spread(multiplier, i);
        for (int line = 0; line < 4; line++) {
            uint8x16_t both = vld1q_u8(nibbles + 64 * line + 16 * i);
            int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
            int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
            int8_t *out = panel + 128 * line + 16 * i;
            vst1q_s8(out, vmulq_s8(vsubq_s8(low, eight), times));
            vst1q_s8(out + 64, vmulq_s8(vsubq_s8(high, eight), times));
        }
    }
}

// One token times a group of 32 columns, straight from the nibbles: those are 8 too large, which
// the sum of the activations takes back.
#define DOT_NIBBLES(line, lane)                                                                    \
    for (int i = 0; i < QUARTERS; i++) {                                                           \
        uint8x16_t both = vld1q_u8(nibbles + 64 * (line) + 16 * i);                                \
        int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));                       \
        int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));                                 \
        acc[i] = vdotq_laneq_s32(acc[i], low, (line) < 2 ? first : second, lane);                  \
        more[i] = vdotq_laneq_s32(more[i], high, (line) < 2 ? first : second, (lane) + 1);         \
    }

TARGET_DOT INLINE void dot_nibbles(const uint8_t *nibbles, const int8_t *x, int32_t sum,
                                   int32x4_t acc[QUARTERS]) {
    int8x16_t first = vld1q_s8(x), second = vld1q_s8(x + 16);
    int32x4_t more[QUARTERS]; // two chains of sums, each half as long to wait for
    for (int i = 0; i < QUARTERS; i++) {
        acc[i] = vdupq_n_s32(-8 * sum);
        more[i] = vdupq_n_s32(0);
    }
    DOT_NIBBLES(0, 0)
    DOT_NIBBLES(1, 2)
    DOT_NIBBLES(2, 0)
    DOT_NIBBLES(3, 2)
    for (int i = 0; i < QUARTERS; i++)
        acc[i] = vaddq_s32(acc[i], more[i]);
}

TARGET_DOT static void one_int4(const uint8_t *units, int32_t groups, const int8_t *x,
                                const float *scale, const int32_t *sum, float v[ROWS]) {
    float32x4_t total[QUARTERS];
    for (int i = 0; i < QUARTERS; i++)
        total[i] = vdupq_n_f32(0);
    for (int32_t g = 0; g < groups; g++, units += 2112) {
        int32x4_t whole[QUARTERS];
        for (int i = 0; i < QUARTERS; i++)
            whole[i] = vdupq_n_s32(0);
        for (int k = 0; k < 8; k++) {
            int32x4_t acc[QUARTERS];
            dot_nibbles(units + 256 * k, x + 256 * g + 32 * k, sum[8 * g + k], acc);
            uint8x8_t both = vld1_u8(units + 2048 + 8 * k), one = vdup_n_u8(1);
            int16x8_t low = vreinterpretq_s16_u16(
                vmovl_u8(vadd_u8(vand_u8(both, vdup_n_u8(15)), one)));
            int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vadd_u8(vshr_n_u8(both, 4), one)));
            whole[0] = vmlaq_s32(whole[0], acc[0], vmovl_s16(vget_low_s16(low)));
            whole[1] = vmlaq_s32(whole[1], acc[1], vmovl_s16(vget_high_s16(low)));
            whole[2] = vmlaq_s32(whole[2], acc[2], vmovl_s16(vget_low_s16(high)));
            whole[3] = vmlaq_s32(whole[3], acc[3], vmovl_s16(vget_high_s16(high)));
        }
        for (int i = 0; i < QUARTERS; i++)
            total[i] = vfmaq_n_f32(total[i], vcvtq_f32_s32(whole[i]), scale[g]);
    }
    for (int i = 0; i < QUARTERS; i++)
        vst1q_f32(v + 4 * i, total[i]);
}

TARGET_DOT static void one_q4_0(const uint8_t *units, int32_t groups, const int8_t *x,
                                const float *scale, const int32_t *sum, float v[ROWS]) {
    float32x4_t total[QUARTERS];
    for (int i = 0; i < QUARTERS; i++)
        total[i] = vdupq_n_f32(0);
    for (int32_t g = 0; g < groups; g++, units += 288) {
        int32x4_t acc[QUARTERS];
        dot_nibbles(units, x + 32 * g, sum[g], acc);
        for (int i = 0; i < QUARTERS; i++) {
            uint16x4_t half = vld1_u16((const uint16_t *)(units + 256) + 4 * i);
            float32x4_t w_scale = vcvt_f32_f16(vreinterpret_f16_u16(half));
            total[i] = vfmaq_f32(total[i], vcvtq_f32_s32(acc[i]), vmulq_n_f32(w_scale, scale[g]));
        }
    }
    for (int i = 0; i < QUARTERS; i++)
        vst1q_f32(v + 4 * i, total[i]);
}

// ------------------------------------------------------------------ bf16

#define MULTIPLY_PAIR(lane)                                                                        \
    for (int i = 0; i < QUARTERS; i++) {                                                           \
        uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(line + 32 * (lane) + 8 * i));            \
        float32x4_t even = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));                           \
        float32x4_t odd = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff0000)));         \
        for (int t = 0; t < n; t++) {                                                              \
            acc[t][i] = vfmaq_laneq_f32(acc[t][i], even, xs[t][0], lane);                          \
            acc[t][i] = vfmaq_laneq_f32(acc[t][i], odd, xs[t][1], lane);                           \
        }                                                                                          \
    }

INLINE void dots_float_n(const osl_bf16 *panel, int32_t columns, const osl_bf16 *x, int64_t stride,
                         float sum[OSL_TILE][ROWS], const int n) {
    float32x4_t acc[OSL_TILE][QUARTERS];
    for (int t = 0; t < n; t++)
        for (int i = 0; i < QUARTERS; i++)
            acc[t][i] = vdupq_n_f32(0);
    for (int32_t c = 0; c < columns; c += 8) {
        const osl_bf16 *line = panel + (int64_t)c * ROWS;
        float32x4_t xs[OSL_TILE][2];
        for (int t = 0; t < n; t++) {
            uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(x + t * stride + c));
            xs[t][0] = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
            xs[t][1] = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff0000)));
        }
        MULTIPLY_PAIR(0)
        MULTIPLY_PAIR(1)
        MULTIPLY_PAIR(2)
        MULTIPLY_PAIR(3)
    }
    for (int t = 0; t < n; t++)
        for (int i = 0; i < QUARTERS; i++)
            vst1q_f32(sum[t] + 4 * i, acc[t][i]);
}

static void dots_float(const osl_bf16 *panel, int32_t columns, const osl_bf16 *x, int64_t stride,
                       int32_t tokens, float sum[OSL_TILE][ROWS]) {
    int32_t done = 0;
    for (; done + 2 <= tokens; done += 2) // of four, the registers would not suffice
        dots_float_n(panel, columns, x + done * stride, stride, sum + done, 2);
    if (done < tokens)
        dots_float_n(panel, columns, x + done * stride, stride, sum + done, 1);
}

#define DOT_PAIR(lane)                                                                             \
    for (int i = 0; i < QUARTERS; i++) {                                                           \
        bfloat16x8_t w = vreinterpretq_bf16_u16(vld1q_u16(line + 32 * (lane) + 8 * i));            \
        for (int t = 0; t < n; t++)                                                                \
            acc[t][i] = vbfdotq_laneq_f32(acc[t][i], w, xs[t], lane);                              \
    }

TARGET_MM INLINE void dots_bf16_n(const osl_bf16 *panel, int32_t columns, const osl_bf16 *x,
                                  int64_t stride, float sum[OSL_TILE][ROWS], const int n) {
    float32x4_t acc[OSL_TILE][QUARTERS];
    for (int t = 0; t < n; t++)
        for (int i = 0; i < QUARTERS; i++)
            acc[t][i] = vdupq_n_f32(0);
    for (int32_t c = 0; c < columns; c += 8) {
        const osl_bf16 *line = panel + (int64_t)c * ROWS;
        bfloat16x8_t xs[OSL_TILE];
        for (int t = 0; t < n; t++)
            xs[t] = vreinterpretq_bf16_u16(vld1q_u16(x + t * stride + c));
        DOT_PAIR(0)
        DOT_PAIR(1)
        DOT_PAIR(2)
        DOT_PAIR(3)
    }
    for (int t = 0; t < n; t++)
        for (int i = 0; i < QUARTERS; i++)
            vst1q_f32(sum[t] + 4 * i, acc[t][i]);
}

TARGET_MM static void dots_bf16(const osl_bf16 *panel, int32_t columns, const osl_bf16 *x,
                                int64_t stride, int32_t tokens, float sum[OSL_TILE][ROWS]) {
    switch (tokens) {
    case 1:
        dots_bf16_n(panel, columns, x, stride, sum, 1);
        break;
    case 2:
        dots_bf16_n(panel, columns, x, stride, sum, 2);
        break;
    case 3:
        dots_bf16_n(panel, columns, x, stride, sum, 3);
        break;
    default:
        dots_bf16_n(panel, columns, x, stride, sum, 4);
    }
}

// ------------------------------------------------------------------ the table

static const osl_blocks dot = {largest, round_int8, dots, dots_float, widen, one_int4, one_q4_0};
static const osl_blocks mm = {largest, round_int8, dots_mm, dots_bf16, widen, one_int4, one_q4_0};

static void fill(osl_acts *acts, const float *x, int64_t ldx, int32_t first, int32_t last) {
    osl_blocks_fill(&dot, acts, x, ldx, first, last);
}

static void multiply(const osl_matrix *w, const osl_acts *acts, const osl_out *out, int32_t first,
                     int32_t last) {
    osl_blocks_multiply(osl_cpu_features()->neon_mm ? &mm : &dot, w, acts, out, first, last);
}

const osl_kernels osl_kernels_neon = {
    .name = "neon",
    .fill = fill,
    .multiply = {multiply, multiply, multiply, multiply, multiply},
};

#endif
