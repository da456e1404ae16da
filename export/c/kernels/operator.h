/* The profile tflite-lstm: TensorFlow Lite's int8 LSTM, in the arithmetic of CMSIS-NN. Pre-activations are Q3.12, the
 * hidden state is the bytes that products read, and of a gate's map all rows have one multiplier. */

/* A sum becomes a share of a pre-activation by two roundings: (sum * 2^left * multiplier / 2^32, halves up) * 2^-right,
 * halves away from zero. half: 2^right / 2, and sign: 1; both 0 if right is. ERN_GENERAL, and where no word holds a
 * product: a multiplier of 24 bits << 8 | shift, by which a sum is (sum * 2^shift * multiplier / 2^24). */
typedef struct {
  int32_t multiplier, half, right, sign;
} ern_factor;

/* (v * 2^shift * multiplier / 2^24, halves up), without 64 bits: four products of half-words. */
ERN_INLINE int32_t ern_high_general(int32_t v, int32_t packed) {
  uint32_t bits = (uint32_t)packed;
  int32_t scaled = ern_shift_left(v, (int)(bits & 255u)), high = scaled >> 16;
  uint32_t low = (uint32_t)scaled & 0xFFFFu, lower = bits >> 8 & 0xFFFFu, upper = bits >> 24;
  int32_t middle = high * (int32_t)lower;
  uint32_t rest = low * upper + (low * lower >> 16) + 128 + ((uint32_t)middle & 255u);
  return high * (int32_t)upper * 256 + (middle >> 8) + (int32_t)(rest >> 8);
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

#if defined(ERN_SMALL_PRODUCTS)
/* As ern_high_general, of a sum times 2^8 that has 31 bits: three products. */
ERN_INLINE int32_t ern_high_packed(int32_t v, int32_t packed) {
  uint32_t bits = (uint32_t)packed, low = (uint32_t)v & 0xFFFFu, lower = bits >> 8 & 0xFFFFu;
  int shift = (int)(bits & 255u);
  int32_t below = (v >> 16) * (int32_t)lower + (int32_t)(low * lower >> 16);
  return ((v >> 8) * (int32_t)(bits >> 24) + (below >> 8) + (128 >> shift)) >> (8 - shift);
}
#endif

ERN_INLINE int32_t ern_rescale(int32_t sum, int left, const ern_factor *by) {
  int32_t high;
#if defined(ERN_SMALL_PRODUCTS)
  if (left == ERN_PACKED) {
    high = ern_high_packed(sum, by->multiplier);
  } else {
    return ern_round_away(ern_high_general(sum, by->multiplier), by->right);
  }
#else
  if (left == ERN_GENERAL) return ern_round_away(ern_high_general(sum, by->multiplier), by->right);
#if defined(ERN_PACKED)
  if (left == ERN_PACKED) left = 0;
#endif
  high = ern_high_word(ern_shift_left(sum, left), by->multiplier);
#endif
  return (high + by->half + ((high >> 31) & -by->sign)) >> by->right;
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
