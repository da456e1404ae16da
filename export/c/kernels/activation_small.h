/* sigmoid and tanh from a table of one side: 1,024 bytes. An entry is sigmoid(i / 24) in Q0.16, less 1/2, above bit 17,
 * and how much is added to it on the way to the next one below. Both functions are odd (about 1/2 the sigmoid), roundings
 * included: -(v >> n) is (~v >> n) + 1, so that ~v takes the same rounding constant. */

typedef int32_t ern_gate;

/* sigmoid(sat16(p)) for p of 18 bits; it is flat in the last interval */
ERN_INLINE ern_gate ern_sigmoid(int32_t p) {
  int32_t sign = p >> 31, value;
  uint32_t magnitude = (uint32_t)((p ^ sign) - sign), interval = magnitude >> 7, entry;
  if (interval > 255) interval = 255;
  entry = ern_table[interval];
  value = (int32_t)((entry >> 10) + (magnitude & 127u) * (entry & 0xFFFFu));
  return ((value ^ sign) + 128 + 16384 * 256) >> 8;
}

/* tanh(sat16(p)) */
ERN_INLINE int32_t ern_tanh(int32_t p) {
  int32_t sign = p >> 31, value;
  uint32_t magnitude = (uint32_t)((p ^ sign) - sign), entry;
  if (magnitude > 16319) magnitude = 16319; /* beyond it is 1 */
  entry = ern_table[magnitude >> 6];
  value = (int32_t)((entry >> 11) + (magnitude & 63u) * (entry & 0xFFFFu));
  return ((value ^ sign) + 32) >> 6;
}

/* round_shift(gate * v, e) */
ERN_INLINE int32_t ern_scale(ern_gate gate, int32_t v, int e) { return ern_round_shift(gate * v, v >> 31, e); }
