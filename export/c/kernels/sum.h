#if !defined(ERN_VECTORS)

/* The sum of two maps, of operands that lie one after the other. Once in the program: it is most of the code. */
ERN_APART void ern_sum(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                       int next_left, int32_t out[ERN_BLOCK]) {
  int32_t second[ERN_BLOCK];
  int n;
  ern_dense(stream, v, columns, left, out);
  ern_dense(stream, v + columns, next_columns, next_left, second);
  for (n = 0; n < ERN_BLOCK; n++) out[n] += second[n];
}

#endif
