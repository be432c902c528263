#include "kv.h"

#include <string.h>

#include "common.h"

static size_t part_values(const osl_kv *kv) {
    return (size_t)kv->dim * OSL_PAGE;
}

static size_t value_bytes(const osl_kv *kv) {
    return kv->format == OSL_INT8 ? 1 : sizeof(osl_bf16);
}

osl_kv osl_kv_sized(int32_t format, int32_t layers, int32_t heads, int32_t dim) {
    osl_kv kv = {.format = format, .layers = layers, .heads = heads, .dim = dim};
    kv.block_bytes = 2 * part_values(&kv) * value_bytes(&kv);
    if (format == OSL_INT8)
        kv.block_bytes += 2 * OSL_PAGE * sizeof(float);
    kv.page_bytes = kv.block_bytes * (size_t)layers * (size_t)heads;
    return kv;
}

int osl_kv_allocate(osl_kv *kv, int32_t pages) {
    osl_kv_free(kv);
    size_t bytes = kv->page_bytes * (size_t)pages;
    if (bytes == 0) {
        kv->pages = pages; // of no layer
        return 0;
    }
    kv->room = osl_room_new(bytes);
    if (!kv->room.data)
        return -1;
    kv->pages = pages;
    return 0;
}

void osl_kv_free(osl_kv *kv) {
    osl_room_free(&kv->room);
    kv->pages = 0;
}

uint8_t *osl_kv_block(const osl_kv *kv, int32_t page, int32_t layer, int32_t head) {
    return kv->room.data + kv->page_bytes * (size_t)page +
           kv->block_bytes * ((size_t)layer * (size_t)kv->heads + (size_t)head);
}

void osl_kv_clear(const osl_kv *kv, uint8_t *block) {
    size_t part = part_values(kv) * value_bytes(kv);
    memset(block + part, 0, kv->block_bytes - part);
}

// Scales [64] for the keys, then for the values.
static float *scales(const osl_kv *kv, const uint8_t *block) {
    return (float *)(void *)(block + 2 * part_values(kv));
}

static void put_bf16(int32_t dim, uint8_t *block, int32_t slot, const float *key,
                     const float *value) {
    osl_pair *keys = (osl_pair *)(void *)block;
    osl_bf16 *values = (osl_bf16 *)(void *)(keys + (size_t)dim / 2 * OSL_PAGE);
    for (int32_t d = 0; d < dim; d += 2)
        keys[d / 2 * OSL_PAGE + slot] = osl_bf16_from_float(key[d]) |
                                        (uint32_t)osl_bf16_from_float(key[d + 1]) << 16;
    osl_bf16 *pair = values + (size_t)(slot / 2) * (size_t)dim * 2 + slot % 2;
    for (int32_t d = 0; d < dim; d++)
        pair[2 * d] = osl_bf16_from_float(value[d]);
}

// The largest size, or NaN where there is an infinity or a NaN: then the scale must tell, as the
// values cannot.
static float largest(const float *x, int32_t n) {
    float top = 0, broken = 0;
    for (int32_t i = 0; i < n; i++) {
        float size = x[i] < 0 ? -x[i] : x[i];
        top = size > top ? size : top;
        broken += 0 * x[i];
    }
    return top + broken;
}

// To the nearest even, without a call of libm; |x| < 2^22.
static int8_t to_int8(float x) {
    const float round = 0x1.8p23f;
    return (int8_t)(int32_t)(osl_bits(x + round) - osl_bits(round));
}

static void put_int8(const osl_kv *kv, uint8_t *block, int32_t slot, const float *key,
                     const float *value) {
    int32_t dim = kv->dim;
    float *scale = scales(kv, block);
    float key_top = largest(key, dim), value_top = largest(value, dim);
    float key_factor = key_top > 0 ? 127 / key_top : 0;
    float value_factor = value_top > 0 ? 127 / value_top : 0;
    scale[slot] = key_top / 127;
    scale[OSL_PAGE + slot] = value_top / 127;
    int8_t *keys = (int8_t *)block, *values = keys + part_values(kv);
    for (int32_t d = 0; d < dim; d += 2) {
        keys[d * OSL_PAGE + 2 * slot] = to_int8(key[d] * key_factor);
        keys[d * OSL_PAGE + 2 * slot + 1] = to_int8(key[d + 1] * key_factor);
    }
    int8_t *pair = values + (size_t)(slot / 2) * (size_t)dim * 2 + slot % 2;
    for (int32_t d = 0; d < dim; d++)
        pair[2 * d] = to_int8(value[d] * value_factor);
}

void osl_kv_put(const osl_kv *kv, uint8_t *block, int32_t slot, const float *key,
                const float *value) {
    if (kv->format == OSL_INT8)
        put_int8(kv, block, slot, key, value);
    else
        put_bf16(kv->dim, block, slot, key, value);
}

const void *osl_kv_keys(const osl_kv *kv, const uint8_t *block) {
    (void)kv;
    return block;
}

const void *osl_kv_values(const osl_kv *kv, const uint8_t *block) {
    return block + part_values(kv) * value_bytes(kv);
}

const float *osl_kv_key_scale(const osl_kv *kv, const uint8_t *block) {
    return kv->format == OSL_INT8 ? scales(kv, block) : NULL;
}

const float *osl_kv_value_scale(const osl_kv *kv, const uint8_t *block) {
    return kv->format == OSL_INT8 ? scales(kv, block) + OSL_PAGE : NULL;
}
