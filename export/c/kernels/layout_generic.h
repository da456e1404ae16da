/* Weights of four rows beside each other, column by column: for any compiler and core. */

#if ERN_W8A16
typedef int16_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)h; }
#else
typedef int8_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)ern_view8(h); }
#endif

typedef struct {
  const int8_t *weights; /* of every block [columns][4] */
  const int32_t *rows;   /* of every block: 4 biases, 4 multipliers */
} ern_stream;

/* Four rows of a dense map, requantized: out[row] = sat16((bias + weights . v) * multiplier). */
ERN_INLINE void ern_dense4(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  const int8_t *w = stream->weights;
  const int32_t *rows = stream->rows;
  int32_t acc[4];
  int n, column;
  for (n = 0; n < 4; n++) acc[n] = rows[n];
  for (column = 0; column < columns; column++, w += 4) {
    int32_t value = v[column];
    acc[0] += value * w[0];
    acc[1] += value * w[1];
    acc[2] += value * w[2];
    acc[3] += value * w[3];
  }
  for (n = 0; n < 4; n++) out[n] = ern_requantize(acc[n], rows[4 + n], left);
  stream->weights = w;
  stream->rows = rows + 8;
}

/* The sum of two such maps, of operands that lie one after the other. */
ERN_INLINE void ern_sum4(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                         int next_left, int32_t out[4]) {
  int32_t second[4];
  int n;
  ern_dense4(stream, v, columns, left, out);
  ern_dense4(stream, v + columns, next_columns, next_left, second);
  for (n = 0; n < 4; n++) out[n] += second[n];
}
