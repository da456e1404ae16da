/* sigmoid and tanh from a table of one side: 1,024 bytes. An entry is sigmoid(i / 24) in Q0.16, less 1/2, above bit 17,
 * and how much is added to it on the way to the next one below. Both functions are odd (about 1/2 the sigmoid), roundings
 * included: -(v >> n) is (~v >> n) + 1, so that ~v takes the same rounding constant. */

typedef int32_t ern_gate;

/* An entry's value and its slope as far as the lower `bits` of a magnitude say; a slope has ten bits. */
ERN_INLINE int32_t ern_interpolate(uint32_t entry, uint32_t magnitude, int bits) {
  uint32_t value = bits < 8 ? entry >> (17 - bits) : entry >> 16 << (bits - 1);
  return (int32_t)(value + (magnitude & ((1u << bits) - 1)) * (entry & 0xFFFFu));
}

/* sigmoid of p in steps of 1 / (24 * 2^bits); it is flat in the last interval */
ERN_INLINE ern_gate ern_sigmoid_of(int32_t p, int bits) {
  int32_t sign = p >> 31;
  uint32_t magnitude = (uint32_t)((p ^ sign) - sign), interval = magnitude >> bits;
  if (interval > 255) interval = 255;
  return ((ern_interpolate(ern_table[interval], magnitude, bits) ^ sign) + (1 << bits) + (1 << (bits + 15))) >> (bits + 1);
}

/* tanh of p in steps of 1 / (48 * 2^bits) */
ERN_INLINE int32_t ern_tanh_of(int32_t p, int bits) {
  int32_t sign = p >> 31;
  uint32_t magnitude = (uint32_t)((p ^ sign) - sign), last = (255u << bits) - 1;
  if (magnitude > last) magnitude = last; /* beyond it is 1 */
  return ((ern_interpolate(ern_table[magnitude >> bits], magnitude, bits) ^ sign) + (1 << (bits - 1))) >> bits;
}

/* sigmoid(sat16(p)) for p of 18 bits, tanh(sat16(p)) */
ERN_INLINE ern_gate ern_sigmoid(int32_t p) { return ern_sigmoid_of(p, 7); }
ERN_INLINE int32_t ern_tanh(int32_t p) { return ern_tanh_of(p, 6); }

/* Of v in steps of 1 / 12288. */
ERN_INLINE ern_gate ern_fine_sigmoid(int32_t v) { return ern_sigmoid_of(v, 9); }
ERN_INLINE int32_t ern_fine_tanh(int32_t v) { return ern_tanh_of(v, 8); }

/* round_shift(gate * v, e) */
ERN_INLINE int32_t ern_scale(ern_gate gate, int32_t v, int e) { return ern_round_shift(gate * v, v >> 31, e); }
