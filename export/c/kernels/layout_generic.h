/* Weights of four rows beside each other, column by column: for any compiler and core. */

typedef struct {
  const int8_t *weights; /* of every block [columns][4] */
  const int32_t *rows;   /* of every block: 4 biases, 4 multipliers */
} ern_stream;

#define ERN_COLUMN(n)                                                                                                  \
  sum0 += v[n] * w[4 * n];                                                                                             \
  sum1 += v[n] * w[4 * n + 1];                                                                                         \
  sum2 += v[n] * w[4 * n + 2];                                                                                         \
  sum3 += v[n] * w[4 * n + 3];

/* The sums of four rows: bias + weights . v. left: of no account here. */
ERN_INLINE void ern_sums4(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  const int8_t *w = stream->weights;
  const int32_t *rows = stream->rows;
  const ern_operand *end = v + columns, *quads = v + (columns & ~3);
  int32_t sum0 = rows[0], sum1 = rows[1], sum2 = rows[2], sum3 = rows[3];
  ERN_ROLLED
  for (; v != quads; v += 4, w += 16) {
    ERN_COLUMN(0)
    ERN_COLUMN(1)
    ERN_COLUMN(2)
    ERN_COLUMN(3)
  }
  for (; v != end; v++, w += 4) {
    ERN_COLUMN(0)
  }
  out[0] = sum0;
  out[1] = sum1;
  out[2] = sum2;
  out[3] = sum3;
  stream->weights = w;
  stream->rows = rows + 4;
  (void)left;
}

/* Four rows of a dense map, requantized: out[row] = sat16((bias + weights . v) * multiplier). */
ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  const int32_t *rows = stream->rows;
  int32_t sums[4];
  ern_sums4(stream, v, columns, left, sums);
  out[0] = ern_requantize(sums[0], rows[4], left);
  out[1] = ern_requantize(sums[1], rows[5], left);
  out[2] = ern_requantize(sums[2], rows[6], left);
  out[3] = ern_requantize(sums[3], rows[7], left);
  stream->rows = rows + 8;
}
