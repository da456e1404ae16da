/* A step of the profile tflite-lstm. The hidden state is kept as the bytes that products read. */

/* A hidden state as an operand and as an output. */
#if defined(ERN_COPIES)
ERN_INLINE void ern_view_of_bytes(const int8_t *h, int units, ern_operand *view) { ern_copy(h, units, view); }
ERN_INLINE void ern_give_bytes(const int8_t *h, int count, int8_t *y) { ern_copy(h, count, y); }
#else
ERN_INLINE void ern_view_of_bytes(const int8_t *h, int units, ern_operand *view) {
  int u;
  ERN_UNROLLED
  for (u = 0; u < units; u++) {
    view[u] = h[u];
    ERN_LOOP;
  }
}
ERN_INLINE void ern_give_bytes(const int8_t *h, int count, int8_t *y) {
  int n;
  for (n = 0; n < count; n++) {
    y[n] = h[n];
    ERN_LOOP;
  }
}
#endif

ERN_INLINE void ern_clear_bytes(int8_t *state, int count) {
  int n;
  for (n = 0; n < count; n++) {
    state[n] = 0;
    ERN_LOOP;
  }
}

/* c' = f * c + i * g, h' = o * tanh(c'). factors: of every gate the input's and the hidden state's. */
ERN_INLINE void ern_operator_step(const ern_layer *layer, const ern_factor *factors, const ern_operand *x, int8_t *h,
                                  int16_t *c) {
  ern_stream s = layer->stream;
  int u, n;
  for (u = 0; u < layer->units; u += ERN_UNITS) {
    ern_value p[4 * ERN_VALUES], *i = p, *f = p + ERN_VALUES, *g = p + 2 * ERN_VALUES, *o = p + 3 * ERN_VALUES;
    ern_operator_gate(&s, layer, factors, x, i);
    ern_operator_gate(&s, layer, factors + 2, x, f);
    ern_operator_gate(&s, layer, factors + 4, x, g);
    ern_operator_gate(&s, layer, factors + 6, x, o);
    ERN_ROLLED
    for (n = 0; n < ERN_VALUES; n++) {
      int16_t *state = c + u + n * ERN_LANES;
      ern_value kept = ern_scale(ern_operator_sigmoid(f[n]), ern_load(state), 15);
      ern_value added = ern_scale(ern_operator_sigmoid(i[n]), ern_operator_tanh(g[n]), 30 - layer->cell_exponent);
      ern_value cell = ern_saturated(ern_add(kept, added));
      ern_value squashed = ern_tanh_of_cell(cell, layer->cell_exponent);
      ern_store(state, cell);
      ern_store_byte(h + u + n * ERN_LANES, ern_scale(ern_operator_sigmoid(o[n]), squashed, 23));
    }
  }
}
