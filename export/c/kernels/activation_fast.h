/* sigmoid and tanh from tables of both sides, 2,048 bytes each. An entry is the value at the lower end of its interval
 * above, and how much is added on the way to the next one below. A gate is kept in the upper half of its word, as a
 * 16-bit multiplication can read it; what lies below is less than a unit, and its sign puts a tie where it belongs. */

#if !defined(ERN_VECTORS)
typedef int32_t ern_gate;

/* An entry's value, and its slope times a position: `bits` of p, taken from below and put below bit 15. */
#if defined(ERN_DSP)
#define ERN_INTERPOLATE(entry, p, bits, base)                                                                          \
  int32_t sum, weights = -0x7FFFFFFF - 1;                                                                              \
  __asm__("bfi %0, %1, #15 - " #bits ", #" #bits : "+r"(weights) : "r"(p));                                            \
  __asm__("smlsd %0, %1, %2, %3" : "=r"(sum) : "r"(entry), "r"(weights), "r"(base));                                   \
  return sum
#else
#define ERN_INTERPOLATE(entry, p, bits, base)                                                                          \
  return ((int32_t)entry >> 16) * 32768 + (int32_t)(entry & 0xFFFFu) * ((p & ((1 << bits) - 1)) << (15 - bits)) + base
#endif
ERN_INLINE int32_t ern_interpolate9(uint32_t entry, int32_t p, int32_t base) { ERN_INTERPOLATE(entry, p, 9, base); }
ERN_INLINE int32_t ern_interpolate8(uint32_t entry, int32_t p, int32_t base) { ERN_INTERPOLATE(entry, p, 8, base); }
ERN_INLINE int32_t ern_interpolate7(uint32_t entry, int32_t p, int32_t base) { ERN_INTERPOLATE(entry, p, 7, base); }
ERN_INLINE int32_t ern_interpolate6(uint32_t entry, int32_t p, int32_t base) { ERN_INTERPOLATE(entry, p, 6, base); }

/* Where interval 0 is. Hidden from compilers that would add it to every index instead. */
ERN_INLINE const uint32_t *ern_middle(const uint32_t *table) {
  table += 256;
#if defined(__GNUC__)
  __asm__("" : "+r"(table));
#endif
  return table;
}

/* sigmoid(sat16(p)) */
ERN_INLINE ern_gate ern_sigmoid(int32_t p) {
  int32_t saturated = ern_sat16(p), interval = saturated >> 7;
  return ern_interpolate7(ern_middle(ern_sigmoid_table)[interval], saturated, 0x40000000 + interval);
}

/* tanh(sat16(p)); it is 1 beyond 15 bits */
ERN_INLINE int32_t ern_tanh(int32_t p) {
  int32_t saturated = ern_sat15(p), interval = saturated >> 6;
  return ern_interpolate6(ern_middle(ern_tanh_table)[interval], saturated, 0x4000 + interval) >> 15;
}

/* sigmoid(v / 12288) for |v| < 255 * 512, tanh(v / 12288) */
ERN_INLINE ern_gate ern_fine_sigmoid(int32_t v) {
  return ern_interpolate9(ern_middle(ern_sigmoid_table)[v >> 9], v, 0x40000000 + (v >> 31));
}
ERN_INLINE int32_t ern_fine_tanh(int32_t v) {
  int32_t saturated = ern_sat17(v);
  return ern_interpolate8(ern_middle(ern_tanh_table)[saturated >> 8], saturated, 0x4000 + (v >> 31)) >> 15;
}

/* round_shift(gate * v, e), e >= 15 */
ERN_INLINE int32_t ern_scale(ern_gate gate, int32_t v, int e) {
#if defined(ERN_DSP)
  int32_t rounded = (1 << (e - 1)) + 1 + 2 * (v >> 31);
  __asm__("smlatb %0, %1, %2, %0" : "+r"(rounded) : "r"(gate), "r"(v));
  return rounded >> e;
#else
  return ern_round_shift((gate >> 16) * v, v >> 31, e);
#endif
}
#endif
