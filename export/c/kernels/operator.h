/* The profile tflite-lstm: TensorFlow Lite's int8 LSTM, in the arithmetic of CMSIS-NN. Pre-activations are Q3.12, the
 * hidden state is the bytes that products read, and of a gate's map all rows have one multiplier. */

/* A sum becomes a share of a pre-activation by two roundings: (sum * 2^up * multiplier / 2^32, halves up) * 2^-right,
 * halves away from zero. half: 2^right / 2, and sign: 1; both 0 if right is. A sum that comes times 2^8 is shifted down
 * instead. */
typedef struct {
  int32_t up, multiplier, half, right, sign, down;
} ern_factor;

/* (v * multiplier / 2^31, halves up) of a multiplier of 31 bits, without 64: four products of half-words. */
ERN_INLINE int32_t ern_doubled_high_word(int32_t v, int32_t multiplier) {
  int32_t high = v >> 16, upper = multiplier >> 16, lower = multiplier & 0xFFFF, middle = high * lower;
  uint32_t low = (uint32_t)v & 0xFFFFu, rest = low * (uint32_t)upper + (low * (uint32_t)lower >> 16) + 16384;
  return high * upper * 2 + (middle >> 15) + (int32_t)((rest + ((uint32_t)middle & 32767u)) >> 15);
}

/* v * 2^-right, halves away from zero; v + half may leave 32 bits. */
ERN_INLINE int32_t ern_round_away(int32_t v, int right) {
  uint32_t mask = (1u << right) - 1;
  return (v >> right) + (((uint32_t)v & mask) > (mask >> 1) + (v < 0 ? 1u : 0u));
}

/* A cell state of scale 2^-exponent in steps of 1 / 12288. */
ERN_INLINE int32_t ern_cell_position(int32_t cell, int exponent) {
  return exponent <= 12 ? cell * (3 << (12 - exponent)) : (cell * 3 + (1 << exponent >> 13)) >> (exponent - 12);
}

#if !defined(ERN_VECTORS)

/* v * 2^-right, halves away from zero. */
ERN_INLINE int32_t ern_rounded_right(int32_t v, const ern_factor *by) {
  return (v + by->half + ((v >> 31) & -by->sign)) >> by->right;
}

/* A sum's share. */
ERN_INLINE int32_t ern_rescale(int32_t sum, int left, const ern_factor *by) {
#if defined(ERN_PACKED)
  if (left == ERN_PACKED) {
    int32_t high;
#if defined(ERN_SMALL_PRODUCTS)
    high = ern_doubled_high_word(sum >> (by->down + 1), by->multiplier);
#else
    high = ern_high_word(sum >> by->down, by->multiplier);
#endif
    return ern_rounded_right(high, by);
  }
#endif
#if !defined(ERN_SMALL_PRODUCTS)
  if (left != ERN_GENERAL) {
    return ern_rounded_right(ern_high_word(ern_shift_left(sum, by->up), by->multiplier), by);
  }
#endif
  (void)left;
  return ern_round_away(ern_doubled_high_word(ern_shift_left(sum, by->up - 1), by->multiplier), by->right);
}

/* The sums of four rows of both maps, whose operands lie one after the other. Once in the program, as ern_sum4. */
ERN_APART void ern_both_sums4(ern_stream *s, const ern_layer *layer, const ern_operand *x, int32_t sums[8]) {
  ern_sums4(s, x, layer->input_columns, layer->input_left, sums);
  ern_sums4(s, x + layer->input_columns, layer->hidden_columns, layer->hidden_left, sums + 4);
}

/* Pre-activations of a gate, not saturated. factors: the input's and the hidden state's. */
ERN_INLINE void ern_operator_gate(ern_stream *s, const ern_layer *layer, const ern_factor *factors,
                                  const ern_operand *x, int32_t p[ERN_VALUES]) {
  int block, n;
#if defined(ERN_GATE_ROUTINE)
  if (layer->input_left == ERN_PACKED && layer->hidden_left == ERN_PACKED) {
    int quads = layer->input_columns / 4 | layer->hidden_columns / 4 << 16;
    s->words = ern_packed_gate4(s->words, x, quads, p, factors);
    return;
  }
#endif
  for (block = 0; block < ERN_VALUES / 4; block++) {
    int32_t sums[8];
    ern_both_sums4(s, layer, x, sums);
    ERN_ROLLED
    for (n = 0; n < 4; n++) {
      int32_t share = ern_sat16(ern_rescale(sums[n], layer->input_left, &factors[0]));
      p[block + n * (ERN_VALUES / 4)] = share + ern_rescale(sums[4 + n], layer->hidden_left, &factors[1]);
    }
  }
}

ERN_INLINE ern_gate ern_operator_sigmoid(int32_t p) { return ern_fine_sigmoid(3 * ern_sat16(p)); }
ERN_INLINE int32_t ern_operator_tanh(int32_t p) { return ern_fine_tanh(3 * ern_sat16(p)); }
ERN_INLINE int32_t ern_tanh_of_cell(int32_t cell, int exponent) {
  return ern_fine_tanh(ern_cell_position(cell, exponent));
}
ERN_INLINE void ern_store_byte(int8_t *to, int32_t v) { *to = (int8_t)ern_sat8(v); }
#endif
