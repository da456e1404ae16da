/* Weights of sixteen columns of a row beside each other: for the vectors of Cortex-A, with dot products where the compiler
 * is told of them (a Raspberry Pi 5: -mcpu=cortex-a76) or without.
 *
 * A block holds [16 columns] of its four rows after another, then the next sixteen columns; the last group may be one of
 * eight. With |weight| <= 127 two products of bytes fit 16 bits: 2 * 127 * 128 < 2^15. */

typedef struct {
  const int8_t *weights; /* of every block [columns / 16][4][16], then [4][8] */
  const int32_t *rows;   /* of every block: 4 biases, 4 multipliers */
} ern_stream;

#if defined(ERN_VECTORS)

/* sum + weights . v of one row, spread over the lanes, for sixteen and for eight columns. */
#if ERN_W8A16
ERN_INLINE int32x4_t ern_dot8(int32x4_t sum, int8x8_t weights, const ern_operand *v) {
  int16x8_t wide = vmovl_s8(weights), x = vld1q_s16(v);
  sum = vmlal_s16(sum, vget_low_s16(wide), vget_low_s16(x));
  return vmlal_s16(sum, vget_high_s16(wide), vget_high_s16(x));
}
ERN_INLINE int32x4_t ern_dot16(int32x4_t sum, int8x16_t weights, const ern_operand *v) {
  return ern_dot8(ern_dot8(sum, vget_low_s8(weights), v), vget_high_s8(weights), v + 8);
}
#elif defined(__ARM_FEATURE_DOTPROD)
ERN_INLINE int32x4_t ern_dot8(int32x4_t sum, int8x8_t weights, const ern_operand *v) {
  int8x8_t none = vdup_n_s8(0);
  return vdotq_s32(sum, vcombine_s8(weights, none), vcombine_s8(vld1_s8(v), none));
}
ERN_INLINE int32x4_t ern_dot16(int32x4_t sum, int8x16_t weights, const ern_operand *v) {
  return vdotq_s32(sum, weights, vld1q_s8(v));
}
#else
ERN_INLINE int32x4_t ern_dot8(int32x4_t sum, int8x8_t weights, const ern_operand *v) {
  return vpadalq_s16(sum, vmull_s8(weights, vld1_s8(v)));
}
ERN_INLINE int32x4_t ern_dot16(int32x4_t sum, int8x16_t weights, const ern_operand *v) {
  int8x16_t x = vld1q_s8(v);
  int16x8_t two = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
  return vpadalq_s16(sum, vmlal_s8(two, vget_high_s8(weights), vget_high_s8(x)));
}
#endif

/* The sums over the lanes of four vectors. */
ERN_INLINE int32x4_t ern_lanes(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
#if defined(__aarch64__)
  return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
#else
  int32x2_t ab = vpadd_s32(vadd_s32(vget_low_s32(a), vget_high_s32(a)), vadd_s32(vget_low_s32(b), vget_high_s32(b)));
  int32x2_t cd = vpadd_s32(vadd_s32(vget_low_s32(c), vget_high_s32(c)), vadd_s32(vget_low_s32(d), vget_high_s32(d)));
  return vcombine_s32(ab, cd);
#endif
}

/* As ern_requantize; left is never 0, since the doubling of the product is one of its bits. */
ERN_INLINE int16x4_t ern_requantize4(int32x4_t acc, int32x4_t multiplier, int left) {
  int32x4_t factor, back;
  int64x2_t low, high;
  if (left != ERN_GENERAL) return vqmovn_s32(vqrdmulhq_s32(vshlq_s32(acc, vdupq_n_s32(left - 1)), multiplier));
  factor = vshrq_n_s32(multiplier, 8);
  back = vnegq_s32(vandq_s32(multiplier, vdupq_n_s32(255)));
  low = vmull_s32(vget_low_s32(acc), vget_low_s32(factor));
  high = vmull_s32(vget_high_s32(acc), vget_high_s32(factor));
  low = vrshlq_s64(low, vmovl_s32(vget_low_s32(back)));
  high = vrshlq_s64(high, vmovl_s32(vget_high_s32(back)));
  return vqmovn_s32(vcombine_s32(vqmovn_s64(low), vqmovn_s64(high)));
}

/* The sums of the next four rows: bias + weights . v. columns: a multiple of 8. */
ERN_INLINE int32x4_t ern_row_sums4(ern_stream *stream, const ern_operand *v, int columns) {
  const int8_t *w = stream->weights;
  const int32_t *rows = stream->rows;
  int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
  int column;
  ERN_UNROLLED
  for (column = 0; column + 16 <= columns; column += 16, w += 64) {
    a = ern_dot16(a, vld1q_s8(w), v + column);
    b = ern_dot16(b, vld1q_s8(w + 16), v + column);
    c = ern_dot16(c, vld1q_s8(w + 32), v + column);
    d = ern_dot16(d, vld1q_s8(w + 48), v + column);
  }
  if (columns % 16 != 0) {
    a = ern_dot8(a, vld1_s8(w), v + column);
    b = ern_dot8(b, vld1_s8(w + 8), v + column);
    c = ern_dot8(c, vld1_s8(w + 16), v + column);
    d = ern_dot8(d, vld1_s8(w + 24), v + column);
    w += 32;
  }
  stream->weights = w;
  stream->rows = rows + 4;
  return vaddq_s32(vld1q_s32(rows), ern_lanes(a, b, c, d));
}

/* The next block of four rows: sat16((bias + weights . v) * multiplier). */
ERN_INLINE ern_value ern_rows(ern_stream *stream, const ern_operand *v, int columns, int left) {
  int32x4_t sums = ern_row_sums4(stream, v, columns);
  const int32_t *multipliers = stream->rows;
  stream->rows = multipliers + 4;
  return ern_requantize4(sums, vld1q_s32(multipliers), left);
}

ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  vst1q_s32(out, vmovl_s16(ern_rows(stream, v, columns, left)));
}

/* The view of four values, and of a whole hidden state. */
#if ERN_W8A16
ERN_INLINE void ern_store_view(ern_operand *view, ern_value v) { vst1_s16(view, v); }
#else
ERN_INLINE int8x8_t ern_views(int16x8_t v) {
  return vqrshrn_n_s16(vqaddq_s16(v, vorrq_s16(vshrq_n_s16(v, 15), vdupq_n_s16(1))), 8);
}
ERN_INLINE void ern_store_view(ern_operand *view, ern_value v) {
  int8x8_t bytes = ern_views(vcombine_s16(v, v));
  vst1_lane_s8(view, bytes, 0);
  vst1_lane_s8(view + 1, bytes, 1);
  vst1_lane_s8(view + 2, bytes, 2);
  vst1_lane_s8(view + 3, bytes, 3);
}
#endif

ERN_INLINE void ern_view_of(const int16_t *h, int units, ern_operand *view) {
  int u;
#if !ERN_W8A16
  for (; units >= 8; units -= 8, h += 8, view += 8) vst1_s8(view, ern_views(vld1q_s16(h)));
#endif
  for (u = 0; u < units; u++) view[u] = ern_view(h[u]);
}

#else

/* The sums of four rows: bias + weights . v. left: of no account here. */
ERN_INLINE void ern_sums4(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  const int8_t *w = stream->weights;
  int row, start, n;
  for (row = 0; row < 4; row++) out[row] = *stream->rows++;
  for (start = 0; start < columns; start += 16) {
    int width = columns - start < 16 ? 8 : 16;
    for (row = 0; row < 4; row++, w += width) {
      for (n = 0; n < width; n++) out[row] += w[n] * v[start + n];
    }
  }
  stream->weights = w;
  (void)left;
}

/* Four rows of a dense map, requantized: out[row] = sat16((bias + weights . v) * multiplier). */
ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  int row;
  ern_sums4(stream, v, columns, left, out);
  for (row = 0; row < 4; row++) out[row] = ern_requantize(out[row], *stream->rows++, left);
}
#endif
