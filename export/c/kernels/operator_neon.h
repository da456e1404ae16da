/* The profile tflite-lstm in the vectors of Cortex-A, see operator.h and activation_neon.h. */

#if defined(ERN_VECTORS)

/* As ern_rescale, of sums and multipliers of any size. */
ERN_INLINE int32x4_t ern_rescaled(int32x4_t sums, const ern_factor *by) {
  int32x4_t high = vqrdmulhq_n_s32(vshlq_s32(sums, vdupq_n_s32(by->up - 1)), by->multiplier);
  return by->right == 0 ? high : vrshlq_s32(vsraq_n_s32(high, high, 31), vdupq_n_s32(-by->right));
}

/* Pre-activations of four units. */
ERN_INLINE void ern_operator_gate(ern_stream *s, const ern_layer *layer, const ern_factor *factors,
                                  const ern_operand *x, ern_value *p) {
  int32x4_t input = ern_rescaled(ern_row_sums4(s, x, layer->input_columns), &factors[0]);
  int32x4_t recurrent = ern_row_sums4(s, x + layer->input_columns, layer->hidden_columns);
  *p = vqmovn_s32(vaddw_s16(ern_rescaled(recurrent, &factors[1]), vqmovn_s32(input)));
}

ERN_INLINE ern_gate ern_operator_sigmoid(ern_value p) {
  int32x4_t v = vmull_n_s16(p, 3), base = vaddq_s32(vdupq_n_s32(0x40000000), vshrq_n_s32(v, 31));
  int16x4_t position = vmovn_s32(vshlq_n_s32(vandq_s32(v, vdupq_n_s32(511)), 6));
  return vshrn_n_s32(ern_interpolate_at(ern_sigmoid_table, vshrq_n_s32(v, 9), position, base), 16);
}

/* tanh(v / 12288); it is 1 beyond 17 bits */
ERN_INLINE ern_value ern_fine_tanh4(int32x4_t v) {
  int32x4_t saturated = vmaxq_s32(vminq_s32(v, vdupq_n_s32(65535)), vdupq_n_s32(-65536));
  int32x4_t base = vaddq_s32(vdupq_n_s32(0x4000), vshrq_n_s32(v, 31));
  int16x4_t position = vmovn_s32(vshlq_n_s32(vandq_s32(saturated, vdupq_n_s32(255)), 7));
  return vshrn_n_s32(ern_interpolate_at(ern_tanh_table, vshrq_n_s32(saturated, 8), position, base), 15);
}

ERN_INLINE ern_value ern_operator_tanh(ern_value p) { return ern_fine_tanh4(vmull_n_s16(p, 3)); }

ERN_INLINE ern_value ern_tanh_of_cell(ern_value cell, int exponent) {
  return ern_fine_tanh4(vrshlq_s32(vmull_n_s16(cell, 3), vdupq_n_s32(12 - exponent)));
}

ERN_INLINE void ern_store_byte(int8_t *to, ern_value v) {
  int8x8_t bytes = vqmovn_s16(vcombine_s16(v, v));
  vst1_lane_s8(to, bytes, 0);
  vst1_lane_s8(to + 1, bytes, 1);
  vst1_lane_s8(to + 2, bytes, 2);
  vst1_lane_s8(to + 3, bytes, 3);
}
#endif
