/* sigmoid and tanh from tables of both sides, 2,048 bytes each. An entry is the value at the lower end of its interval
 * above, and how much is added on the way to the next one below. A gate is kept in the upper half of its word, as a
 * 16-bit multiplication can read it; what lies below is less than a unit, and its sign puts a tie where it belongs. */

typedef int32_t ern_gate;

/* Both walk along an interval: multiples of 32768 (the entry's upper half), and of its lower half. */
ERN_INLINE int32_t ern_interval(uint32_t entry, int32_t position, int32_t base) {
#if defined(ERN_DSP)
  int32_t sum, weights = (int32_t)0x80000000;
  weights |= position;
  __asm__("smlsd %0, %1, %2, %3" : "=r"(sum) : "r"(entry), "r"(weights), "r"(base));
  return sum;
#else
  return ((int32_t)entry >> 16) * 32768 + (int32_t)(entry & 0xFFFFu) * position + base;
#endif
}

ERN_INLINE ern_gate ern_sigmoid(int32_t p) {
  int32_t saturated = ern_sat16(p), interval = saturated >> 7;
  return ern_interval(ern_sigmoid_table[256 + interval], (saturated & 127) << 8, 0x40000000 + interval);
}

ERN_INLINE int32_t ern_tanh(int32_t p) {
  int32_t saturated = ern_sat15(p), interval = saturated >> 6; /* beyond 15 bits is 1 */
  return ern_interval(ern_tanh_table[256 + interval], (saturated & 63) << 9, 0x4000 + interval) >> 15;
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
