/* sigmoid and tanh from a table of one side: 1,028 bytes. An entry is sigmoid(i / 24) in Q0.16 above, and how much is
 * added to it on the way to the next one below. Both functions are odd (but for sigmoid's 1/2), roundings included. */

typedef int32_t ern_gate;

ERN_INLINE ern_gate ern_sigmoid(int32_t p) {
  int32_t saturated = ern_sat16(p), sign = saturated >> 31, magnitude = (saturated ^ sign) - sign, value;
  uint32_t entry = ern_table[magnitude >> 7];
  value = (int32_t)(((entry >> 16) << 7) + ((uint32_t)magnitude & 127u) * (entry & 0xFFFFu) + 128u) >> 8;
  return (value ^ sign) + (sign & 32769);
}

ERN_INLINE int32_t ern_tanh(int32_t p) {
  int32_t sign = p >> 31, magnitude = (p ^ sign) - sign, value;
  uint32_t entry;
  if (magnitude > 16319) magnitude = 16319; /* beyond it is 1 */
  entry = ern_table[magnitude >> 6];
  value = (int32_t)(((entry >> 16) << 6) + ((uint32_t)magnitude & 63u) * (entry & 0xFFFFu) + 32u - (1u << 21)) >> 6;
  return (value ^ sign) - sign;
}

/* round_shift(gate * v, e) */
ERN_INLINE int32_t ern_scale(ern_gate gate, int32_t v, int e) { return ern_round_shift(gate * v, v >> 31, e); }
