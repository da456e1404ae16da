/* One step of each cell. The rows of the weights come in the order in which they are needed: for every four units their
 * gates, of every gate the input's share and the hidden state's. */

typedef struct {
  ern_stream stream;                  /* the weights, from the first block on */
  int units;                          /* a multiple of 4 */
  int input_columns, hidden_columns;  /* of the operands, as the layout counts them */
  int input_left, hidden_left;        /* how multipliers are to be read, of either map */
  int cell_exponent;                  /* an LSTM's: the cell state's scale is 2^-cell_exponent */
} ern_layer;

/* Pre-activations of four units' gate: the sum of both shares, before it is saturated. The view of the hidden state
 * follows the input in memory. */
ERN_INLINE void ern_gate4(ern_stream *s, const ern_layer *layer, const ern_operand *x, int32_t p[4]) {
  ern_sum4(s, x, layer->input_columns, layer->input_left, layer->hidden_columns, layer->hidden_left, p);
}

/* The shares apart. */
ERN_INLINE void ern_shares4(ern_stream *s, const ern_layer *layer, const ern_operand *x, const ern_operand *view,
                            int32_t input[4], int32_t recurrent[4]) {
  ern_dense4(s, x, layer->input_columns, layer->input_left, input);
  ern_dense4(s, view, layer->hidden_columns, layer->hidden_left, recurrent);
}

/* c' = f * c + i * g, h' = o * tanh(c') */
ERN_INLINE void ern_lstm_step(const ern_layer *layer, const ern_operand *x, int16_t *h, int16_t *c) {
  ern_stream s = layer->stream;
  int u, n;
  for (u = 0; u < layer->units; u += 4) {
    int32_t p[16], *i = p, *f = p + 4, *g = p + 8, *o = p + 12;
    ern_gate4(&s, layer, x, i);
    ern_gate4(&s, layer, x, f);
    ern_gate4(&s, layer, x, g);
    ern_gate4(&s, layer, x, o);
    ERN_ROLLED
    for (n = 0; n < 4; n++) {
      int32_t kept = ern_scale(ern_sigmoid(f[n]), c[u + n], 15);
      int32_t added = ern_scale(ern_sigmoid(i[n]), ern_tanh(g[n]), 30 - layer->cell_exponent);
      int32_t cell = ern_sat16(kept + added);
      int32_t squashed = ern_tanh(ern_cell_to_preactivation(cell, layer->cell_exponent));
      c[u + n] = (int16_t)cell;
      h[u + n] = (int16_t)ern_scale(ern_sigmoid(o[n]), squashed, 15);
    }
  }
}

/* h' = (1 - z) * n + z * h */
ERN_INLINE int16_t ern_blend(ern_gate z, int32_t n, int32_t h) {
  return (int16_t)ern_sat16(n - ern_scale(z, n, 15) + ern_scale(z, h, 15));
}

/* n = tanh(W x + r * (U h + b)) */
ERN_INLINE void ern_gru_step(const ern_layer *layer, const ern_operand *x, int16_t *h) {
  ern_stream s = layer->stream;
  int u, k;
  for (u = 0; u < layer->units; u += 4) {
    int32_t r[4], z[4], input[4], recurrent[4];
    ern_gate4(&s, layer, x, r);
    ern_gate4(&s, layer, x, z);
    ern_shares4(&s, layer, x, x + layer->input_columns, input, recurrent);
    for (k = 0; k < 4; k++) {
      int32_t n = ern_tanh(input[k] + ern_scale(ern_sigmoid(r[k]), recurrent[k], 15));
      h[u + k] = ern_blend(ern_sigmoid(z[k]), n, h[u + k]);
    }
  }
}

/* n = tanh(W x + U (r * h)): every unit's r * h is needed first. `reset` becomes their view. */
ERN_INLINE void ern_gru_reset_before_step(const ern_layer *layer, const ern_operand *x, ern_operand *reset,
                                          int16_t *h) {
  ern_stream s = layer->stream;
  int u, k;
  for (u = 0; u < layer->units; u += 4) {
    int32_t r[4];
    ern_gate4(&s, layer, x, r);
    for (k = 0; k < 4; k++) reset[u + k] = ern_view(ern_scale(ern_sigmoid(r[k]), h[u + k], 15));
  }
  for (u = 0; u < layer->units; u += 4) {
    int32_t z[4], input[4], recurrent[4];
    ern_gate4(&s, layer, x, z);
    ern_shares4(&s, layer, x, reset, input, recurrent);
    for (k = 0; k < 4; k++) {
      int32_t n = ern_tanh(input[k] + recurrent[k]);
      h[u + k] = ern_blend(ern_sigmoid(z[k]), n, h[u + k]);
    }
  }
}

/* h' = tanh(W x + U h + b) */
ERN_INLINE void ern_rnn_step(const ern_layer *layer, const ern_operand *x, int16_t *h) {
  ern_stream s = layer->stream;
  int u, k;
  for (u = 0; u < layer->units; u += 4) {
    int32_t n[4];
    ern_gate4(&s, layer, x, n);
    for (k = 0; k < 4; k++) h[u + k] = (int16_t)ern_tanh(n[k]);
  }
}

/* The hidden state as products and the next layer read it. */
ERN_INLINE void ern_view_of(const int16_t *h, int units, ern_operand *view) {
  int u;
  ERN_UNROLLED
  for (u = 0; u < units; u++) view[u] = ern_view(h[u]);
}

/* The dense output: int16, then int8. */
ERN_INLINE void ern_head(ern_stream s, const ern_operand *view, int columns, int left, int outputs, int8_t *y) {
  int n, k;
  for (n = 0; n < outputs; n += 4) {
    int32_t wide[4];
    ern_dense4(&s, view, columns, left, wide);
    for (k = 0; k < 4 && n + k < outputs; k++) y[n + k] = (int8_t)ern_view8(wide[k]);
  }
}
