/* The profile tflite-lstm in the vectors of cores with MVE, see operator.h and activation_mve.h. */

#if defined(ERN_VECTORS)

/* As ern_rescale, of sums and multipliers of any size. */
ERN_INLINE int32x4_t ern_rescaled(int32x4_t sums, const ern_factor *by) {
  int32x4_t high;
  if (by->up != 1) sums = vshlq_r_s32(sums, by->up - 1);
  high = vqrdmulhq_n_s32(sums, by->multiplier);
  return by->right == 0 ? high : vrshlq_n_s32(vaddq_s32(high, vshrq_n_s32(high, 31)), -by->right);
}

/* Pre-activations of eight units: the even ones' rows come first. */
ERN_INLINE void ern_operator_gate(ern_stream *s, const ern_layer *layer, const ern_factor *factors,
                                  const ern_operand *x, ern_value *p) {
  const ern_operand *place = x;
  int32x4_t even, odd, next_even, next_odd, none;
  int16x8_t input;
  even = ern_rescaled(ern_row_sums4(s, &place, layer->input_columns, &none), &factors[0]);
  next_even = ern_rescaled(ern_row_sums4(s, &place, layer->hidden_columns, &none), &factors[1]);
  odd = ern_rescaled(ern_row_sums4(s, &x, layer->input_columns, &none), &factors[0]);
  next_odd = ern_rescaled(ern_row_sums4(s, &x, layer->hidden_columns, &none), &factors[1]);
  input = ern_narrow(even, odd);
  *p = ern_narrow(vaddq_s32(next_even, vmovlbq_s16(input)), vaddq_s32(next_odd, vmovltq_s16(input)));
}

/* An interval is what is above 16 bits of the magnitude times 3 * 2^7, the position in it what is below. */
ERN_INLINE ern_gate ern_operator_sigmoid(ern_value p) {
  uint16x8_t magnitude = vreinterpretq_u16_s16(vabsq_s16(p)), interval = vmulhq_u16(magnitude, vdupq_n_u16(384));
  uint16x8_t added = vmulhq_u16(ERN_AT(ern_slopes, interval), vmulq_n_u16(magnitude, 384));
  return ern_mirrored(vreinterpretq_s16_u16(vrhaddq_u16(ERN_AT(ern_values, interval), added)), p);
}

ERN_INLINE ern_value ern_interpolated_tanh(uint16x8_t interval, uint16x8_t position, ern_value sign) {
  uint16x8_t added = vrmulhq_u16(ERN_AT(ern_slopes, interval), position);
  added = vaddq_n_u16(vaddq_u16(ERN_AT(ern_values, interval), added), 32768);
  return ern_signed(vreinterpretq_s16_u16(added), sign);
}

/* tanh(p / 2^12 * 2^finer); it is 1 from 255 intervals on */
ERN_INLINE ern_value ern_coarse_tanh(ern_value p, int finer) {
  uint16x8_t last = vdupq_n_u16((uint16_t)(65279 / (3 << finer)));
  uint16x8_t magnitude = vminq_u16(vreinterpretq_u16_s16(vabsq_s16(p)), last);
  uint16_t scale = (uint16_t)(768 << finer);
  return ern_interpolated_tanh(vmulhq_u16(magnitude, vdupq_n_u16(scale)), vmulq_n_u16(magnitude, scale), p);
}

ERN_INLINE ern_value ern_operator_tanh(ern_value p) { return ern_coarse_tanh(p, 0); }

/* Beyond 12 bits behind the point a position is (3 * cell + half) >> right, of a negative one's magnitude
 * (3 * magnitude + half - 1) >> right: without the bit that does not fit a magnitude and half of it. */
ERN_INLINE ern_value ern_tanh_of_cell(ern_value cell, int exponent) {
  uint16x8_t magnitude, below, position;
  if (exponent <= 12) return ern_coarse_tanh(cell, 12 - exponent);
  magnitude = vreinterpretq_u16_s16(vabsq_s16(cell));
  below = vreinterpretq_u16_s16(vaddq_s16(vreinterpretq_s16_u16(magnitude), vshrq_n_s16(cell, 15)));
  if (exponent == 13) {
    position = vaddq_u16(magnitude, vrshrq_n_u16(below, 1));
  } else {
    position = vrshlq_n_u16(vaddq_u16(magnitude, vshrq_n_u16(below, 1)), 13 - exponent);
  }
  return ern_interpolated_tanh(vshrq_n_u16(position, 8), vshlq_n_u16(position, 8), cell);
}

ERN_INLINE void ern_store_byte(int8_t *to, ern_value v) {
  vstrbq_s16(to, vreinterpretq_s16_s8(vqmovnbq_s16(vreinterpretq_s8_s16(v), v)));
}
#endif
