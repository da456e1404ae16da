#if !defined(ERN_VECTORS)

/* The sum of two maps, of operands that lie one after the other. Once in the program: it is most of the code. */
ERN_APART void ern_sum4(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                        int next_left, int32_t out[4]) {
  int32_t second[4];
  int n;
  ern_dense4(stream, v, columns, left, out);
  ern_dense4(stream, v + columns, next_columns, next_left, second);
  for (n = 0; n < 4; n++) out[n] += second[n];
}

#endif
