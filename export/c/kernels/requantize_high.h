/* sat16(acc * multiplier * 2^left / 2^32): the high word of one product, rounded. */
ERN_INLINE int32_t ern_requantize(int32_t acc, int32_t multiplier, int left) {
  int32_t high, scaled;
  if (left == ERN_GENERAL) return ern_requantize_general(acc, multiplier);
  scaled = ern_shift_left(acc, left);
#if defined(ERN_DSP)
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(scaled), "r"(multiplier));
#else
  {
    int64_t product = (int64_t)scaled * multiplier;
    high = (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
  }
#endif
  return ern_sat16(high);
}
