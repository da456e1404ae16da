/* sigmoid and tanh from tables of one side, 514 bytes each: sigmoid(i / 24) in Q0.16, and how much is added on the way to
 * the next value. Eight at once in the vectors of cores with MVE (M55, M85): int16 lanes, whose sums saturate. */

#if defined(__GNUC__) && defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)
#define ERN_VECTORS
#include <arm_mve.h>

typedef int16x8_t ern_value;
typedef int16x8_t ern_gate;

ERN_INLINE ern_value ern_load(const int16_t *from) { return vldrhq_s16(from); }
ERN_INLINE void ern_store(int16_t *to, ern_value v) { vstrhq_s16(to, v); }
ERN_INLINE ern_value ern_add(ern_value a, ern_value b) { return vqaddq_s16(a, b); }
ERN_INLINE ern_value ern_subtract(ern_value a, ern_value b) { return vqsubq_s16(a, b); }
ERN_INLINE ern_value ern_saturated(ern_value v) { return v; }

/* Two vectors of four, saturated, as the even and the odd lanes of one. */
ERN_INLINE int16x8_t ern_narrow(int32x4_t even, int32x4_t odd) {
  return vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(even), even), odd);
}

#define ERN_AT(table, n) vldrhq_gather_shifted_offset_u16(table, n)

/* 32768 - v, or -v, where p is negative, else v. */
#if defined(__clang__)
ERN_INLINE int16x8_t ern_mirrored(int16x8_t v, int16x8_t p) {
  return vsubq_m_s16(v, vdupq_n_s16(-32768), v, vcmpltq_n_s16(p, 0));
}
ERN_INLINE int16x8_t ern_signed(int16x8_t v, int16x8_t p) { return vnegq_m_s16(v, v, vcmpltq_n_s16(p, 0)); }
#else /* GCC 12 would move the predicate through a core register; in the order of the text fewer vectors live */
ERN_INLINE int16x8_t ern_mirrored(int16x8_t v, int16x8_t p) {
  __asm__ volatile(
      "vptt.s16 lt, %q1, zr\n"
      "vnegt.s16 %q0, %q0\n"
      "vaddt.i16 %q0, %q0, %2\n"
      : "+w"(v)
      : "w"(p), "r"(32768)
      : "p0");
  return v;
}
ERN_INLINE int16x8_t ern_signed(int16x8_t v, int16x8_t p) {
  __asm__ volatile(
      "vpt.s16 lt, %q1, zr\n"
      "vnegt.s16 %q0, %q0\n"
      : "+w"(v)
      : "w"(p)
      : "p0");
  return v;
}
#endif

ERN_INLINE ern_gate ern_sigmoid(ern_value p) {
  uint16x8_t magnitude = vreinterpretq_u16_s16(vabsq_s16(p)), interval = vshrq_n_u16(magnitude, 7);
  uint16x8_t added = vmulhq_u16(ERN_AT(ern_slopes, interval), vshlq_n_u16(magnitude, 9));
  return ern_mirrored(vreinterpretq_s16_u16(vrhaddq_u16(ERN_AT(ern_values, interval), added)), p);
}

ERN_INLINE ern_value ern_tanh(ern_value p) {
  uint16x8_t magnitude = vminq_u16(vreinterpretq_u16_s16(vabsq_s16(p)), vdupq_n_u16(16319)); /* beyond it is 1 */
  uint16x8_t interval = vshrq_n_u16(magnitude, 6);
  uint16x8_t added = vrmulhq_u16(ERN_AT(ern_slopes, interval), vshlq_n_u16(magnitude, 10));
  added = vaddq_n_u16(vaddq_u16(ERN_AT(ern_values, interval), added), 32768);
  return ern_signed(vreinterpretq_s16_u16(added), p);
}

/* A product, moved from zero by what rounds it as ern_round_shift does. */
ERN_INLINE int32x4_t ern_beyond(int32x4_t product) {
  return vaddq_s32(product, vorrq_n_s32(vshrq_n_s32(product, 31), 1));
}

/* sat16(round_shift(gate * v, e)) */
ERN_INLINE ern_value ern_scale(ern_gate gate, ern_value v, int e) {
  int32x4_t even = ern_beyond(vmullbq_int_s16(gate, v)), odd = ern_beyond(vmulltq_int_s16(gate, v));
  if (e == 15) return vqrshrntq_n_s32(vqrshrnbq_n_s32(v, even, 15), odd, 15);
  return ern_narrow(vrshlq_n_s32(even, -e), vrshlq_n_s32(odd, -e));
}

/* As ern_cell_to_preactivation. 3 * c / 4 is c less a quarter; where that saturates, tanh is 1 long since. */
ERN_INLINE ern_value ern_preactivation(ern_value cell, int exponent) {
  int16x8_t sign = vshrq_n_s16(cell, 15), v;
  if (exponent < 12) cell = vqshlq_r_s16(cell, 12 - exponent);
  v = vsubq_s16(cell, vrshrq_n_s16(vqaddq_s16(cell, sign), 2));
  return exponent > 12 ? vrshlq_n_s16(vaddq_s16(v, sign), 12 - exponent) : v;
}

#else

typedef int32_t ern_gate;

/* sigmoid(sat16(p)) */
ERN_INLINE ern_gate ern_sigmoid(int32_t p) {
  int32_t saturated = ern_sat16(p), sign = saturated >> 31, magnitude = (saturated ^ sign) - sign;
  int32_t interval = magnitude >> 7, value = ern_values[interval] * 128 + ern_slopes[interval] * (magnitude & 127);
  return (((value + 128) >> 8) ^ sign) + (sign & 32769);
}

/* tanh(sat16(p)) */
ERN_INLINE int32_t ern_tanh(int32_t p) {
  int32_t sign = p >> 31, magnitude = ern_clamp((p ^ sign) - sign, 16319); /* beyond it is 1 */
  int32_t interval = magnitude >> 6, value = ern_values[interval] * 64 + ern_slopes[interval] * (magnitude & 63);
  return (((value + 32) >> 6) - 32768) * (2 * sign + 1);
}

/* sigmoid(v / 12288) for |v| < 255 * 512, tanh(v / 12288) */
ERN_INLINE ern_gate ern_fine_sigmoid(int32_t v) {
  int32_t sign = v >> 31, magnitude = (v ^ sign) - sign;
  int32_t interval = magnitude >> 9, value = ern_values[interval] * 512 + ern_slopes[interval] * (magnitude & 511);
  return (((value + 512) >> 10) ^ sign) + (sign & 32769);
}
ERN_INLINE int32_t ern_fine_tanh(int32_t v) {
  int32_t sign = v >> 31, magnitude = ern_clamp((v ^ sign) - sign, 65279); /* beyond it is 1 */
  int32_t interval = magnitude >> 8, value = ern_values[interval] * 256 + ern_slopes[interval] * (magnitude & 255);
  return (((value + 128) >> 8) - 32768) * (2 * sign + 1);
}

/* round_shift(gate * v, e) */
ERN_INLINE int32_t ern_scale(ern_gate gate, int32_t v, int e) { return ern_round_shift(gate * v, v >> 31, e); }
#endif
