/* Four values at once, in the vectors of Cortex-A: int16 lanes whose sums saturate. The tables are those of
 * activation_fast.h, whose functions take the place of these on other cores. */

#if defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
#define ERN_VECTORS
#include <arm_neon.h>

#define ERN_UNITS 4
#define ERN_VALUES 1

typedef int16x4_t ern_value;
typedef int16x4_t ern_gate;

ERN_INLINE ern_value ern_load(const int16_t *from) { return vld1_s16(from); }
ERN_INLINE void ern_store(int16_t *to, ern_value v) { vst1_s16(to, v); }
ERN_INLINE ern_value ern_add(ern_value a, ern_value b) { return vqadd_s16(a, b); }
ERN_INLINE ern_value ern_subtract(ern_value a, ern_value b) { return vqsub_s16(a, b); }
ERN_INLINE ern_value ern_saturated(ern_value v) { return v; }

/* An entry's value * 2^15, and its slope times a position of 15 bits. */
ERN_INLINE int32x4_t ern_interpolate_at(const uint32_t *table, int32x4_t interval, int16x4_t position, int32x4_t base) {
  int16x4_t value, slope;
  uint32x4_t entries;
  table += 256;
#if defined(__GNUC__)
  __asm__("" : "+r"(table)); /* hidden from compilers that would add it to every index instead */
#endif
  entries = vld1q_dup_u32(table + vgetq_lane_s32(interval, 0));
  entries = vld1q_lane_u32(table + vgetq_lane_s32(interval, 1), entries, 1);
  entries = vld1q_lane_u32(table + vgetq_lane_s32(interval, 2), entries, 2);
  entries = vld1q_lane_u32(table + vgetq_lane_s32(interval, 3), entries, 3);
  value = vreinterpret_s16_u16(vshrn_n_u32(entries, 16));
  slope = vreinterpret_s16_u16(vmovn_u32(entries));
  return vaddq_s32(vmlal_s16(vshll_n_s16(value, 15), slope, position), base);
}

/* The same of p, whose lower seven bits are the position in the interval. */
ERN_INLINE int32x4_t ern_interpolate(const uint32_t *table, int16x4_t p, int32_t base) {
  int16x4_t interval = vshr_n_s16(p, 7), position = vshl_n_s16(vand_s16(p, vdup_n_s16(127)), 8);
  int32x4_t wide = vmovl_s16(interval);
  return ern_interpolate_at(table, wide, position, vaddq_s32(vdupq_n_s32(base), wide));
}

ERN_INLINE ern_gate ern_sigmoid(ern_value p) {
  return vshrn_n_s32(ern_interpolate(ern_sigmoid_table, p, 0x40000000), 16);
}

/* It is 1 beyond 15 bits, and an interval has six. */
ERN_INLINE ern_value ern_tanh(ern_value p) {
  return vshrn_n_s32(ern_interpolate(ern_tanh_table, vqshl_n_s16(p, 1), 0x4000), 15);
}

/* sat16(round_shift(gate * v, e)): a product is moved away from zero by 1, so that half up rounds it that way. */
ERN_INLINE ern_value ern_scale(ern_gate gate, ern_value v, int e) {
  int32x4_t product = vmull_s16(gate, v);
  product = vaddq_s32(product, vorrq_s32(vshrq_n_s32(product, 31), vdupq_n_s32(1)));
  return e == 15 ? vqrshrn_n_s32(product, 15) : vqmovn_s32(vrshlq_s32(product, vdupq_n_s32(-e)));
}

/* As ern_cell_to_preactivation: 3 / 4 is 1 less a quarter. Where a shift to the left saturates, tanh is 1 long since. */
ERN_INLINE ern_value ern_preactivation(ern_value cell, int exponent) {
  int16x4_t sign = vshr_n_s16(cell, 15), v;
  if (exponent < 12) cell = vqshl_s16(cell, vdup_n_s16((int16_t)(12 - exponent)));
  v = vsub_s16(cell, vrshr_n_s16(vqadd_s16(cell, sign), 2));
  return exponent > 12 ? vrshl_s16(vadd_s16(v, sign), vdup_n_s16((int16_t)(12 - exponent))) : v;
}

#endif
