/* The high word of a product, rounded. */
ERN_INLINE int32_t ern_high_word(int32_t v, int32_t multiplier) {
#if defined(ERN_DSP)
  int32_t high;
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(v), "r"(multiplier));
  return high;
#else
  int64_t product = (int64_t)v * multiplier;
  return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
#endif
}

/* sat16(acc * multiplier * 2^left / 2^32) */
ERN_INLINE int32_t ern_requantize(int32_t acc, int32_t multiplier, int left) {
  if (left == ERN_GENERAL) return ern_requantize_general(acc, multiplier);
  return ern_sat16(ern_high_word(ern_shift_left(acc, left), multiplier));
}
