/* One step of each cell. The rows of the weights come in the order in which they are needed: for every ERN_UNITS units
 * their gates, of every gate the input's share and the hidden state's.
 *
 * A value belongs to one unit, or is a vector of several units': ERN_VALUES of them make up the ERN_UNITS. */

typedef struct {
  ern_stream stream;                  /* the weights, from the first block on */
  int units;                          /* a multiple of ERN_UNITS */
  int input_columns, hidden_columns;  /* of the operands, as the layout counts them */
  int input_left, hidden_left;        /* how multipliers are to be read, of either map */
  int cell_exponent;                  /* an LSTM's: the cell state's scale is 2^-cell_exponent */
} ern_layer;

#if !defined(ERN_UNITS)
#define ERN_UNITS 4
#define ERN_VALUES 4
#endif

#define ERN_LANES (ERN_UNITS / ERN_VALUES)

#if !defined(ERN_VECTORS)
typedef int32_t ern_value;
ERN_INLINE ern_value ern_load(const int16_t *from) { return *from; }
ERN_INLINE void ern_store(int16_t *to, ern_value v) { *to = (int16_t)v; }
ERN_INLINE void ern_store_view(ern_operand *to, ern_value v) { *to = ern_view(v); }

/* Sums saturate at once or in ern_saturated: no sum here leaves 16 bits but for its last term. */
ERN_INLINE ern_value ern_add(ern_value a, ern_value b) { return a + b; }
ERN_INLINE ern_value ern_subtract(ern_value a, ern_value b) { return a - b; }
ERN_INLINE ern_value ern_saturated(ern_value v) { return ern_sat16(v); }

ERN_INLINE ern_value ern_preactivation(ern_value cell, int exponent) {
  return ern_cell_to_preactivation(cell, exponent);
}

/* The hidden state as products and the next layer read it. */
ERN_INLINE void ern_view_of(const int16_t *h, int units, ern_operand *view) {
  int u;
  ERN_UNROLLED
  for (u = 0; u < units; u++) {
    view[u] = ern_view(h[u]);
#if ERN_W8A16
    ERN_LOOP;
#endif
  }
}
#endif

#if !defined(ERN_FLIPPED)
#define ERN_FLIPPED 0 /* bits that an operand has the other way round */
#endif

#if !defined(ERN_COPIES)
/* An input as an operand, an operand that was kept, a hidden state as an output. */
ERN_INLINE void ern_take_input(const ern_input *x, int count, ern_operand *operand) {
  int n;
  for (n = 0; n < count; n++) operand[n] = (ern_operand)(x[n] ^ ERN_FLIPPED);
}
ERN_INLINE void ern_take_view(const ern_operand *view, int count, ern_operand *operand) {
  int n;
  for (n = 0; n < count; n++) operand[n] = view[n];
}
ERN_INLINE void ern_give_state(const int16_t *h, int count, int16_t *y) {
  int n;
  for (n = 0; n < count; n++) y[n] = h[n];
}
#endif

ERN_INLINE void ern_clear(int16_t *state, int count) {
  int n;
  for (n = 0; n < count; n++) {
    state[n] = 0;
    ERN_LOOP;
  }
}

/* Pre-activations of a gate: the sum of both shares, before it is saturated. The view of the hidden state follows the
 * input in memory. */
ERN_INLINE void ern_gate_sums(ern_stream *s, const ern_layer *layer, const ern_operand *x, ern_value p[ERN_VALUES]) {
#if ERN_UNITS == 8
  ern_sum8(s, x, layer->input_columns, layer->input_left, layer->hidden_columns, layer->hidden_left, p);
#elif defined(ERN_VECTORS)
  ern_value input = ern_rows(s, x, layer->input_columns, layer->input_left);
  *p = ern_add(input, ern_rows(s, x + layer->input_columns, layer->hidden_columns, layer->hidden_left));
#else
  ern_sum(s, x, layer->input_columns, layer->input_left, layer->hidden_columns, layer->hidden_left, p);
#endif
}

/* The shares apart. */
ERN_INLINE void ern_shares(ern_stream *s, const ern_layer *layer, const ern_operand *x, const ern_operand *view,
                           ern_value input[ERN_VALUES], ern_value recurrent[ERN_VALUES]) {
#if ERN_UNITS == 8
  ern_dense8(s, x, layer->input_columns, layer->input_left, view, layer->hidden_columns, layer->hidden_left, input,
             recurrent);
#elif defined(ERN_VECTORS)
  *input = ern_rows(s, x, layer->input_columns, layer->input_left);
  *recurrent = ern_rows(s, view, layer->hidden_columns, layer->hidden_left);
#else
  ern_dense(s, x, layer->input_columns, layer->input_left, input);
  ern_dense(s, view, layer->hidden_columns, layer->hidden_left, recurrent);
#endif
}

/* c' = f * c + i * g, h' = o * tanh(c') */
ERN_INLINE void ern_lstm_step(const ern_layer *layer, const ern_operand *x, int16_t *h, int16_t *c) {
  ern_stream s = layer->stream;
  int u, n;
  for (u = 0; u < layer->units; u += ERN_UNITS) {
    ern_value p[4 * ERN_VALUES], *i = p, *f = p + ERN_VALUES, *g = p + 2 * ERN_VALUES, *o = p + 3 * ERN_VALUES;
    ern_gate_sums(&s, layer, x, i);
    ern_gate_sums(&s, layer, x, f);
    ern_gate_sums(&s, layer, x, g);
    ern_gate_sums(&s, layer, x, o);
    ERN_ROLLED
    for (n = 0; n < ERN_VALUES; n++) {
      int16_t *state = c + u + n * ERN_LANES;
      ern_value kept = ern_scale(ern_sigmoid(f[n]), ern_load(state), 15);
      ern_value added = ern_scale(ern_sigmoid(i[n]), ern_tanh(g[n]), 30 - layer->cell_exponent);
      ern_value cell = ern_saturated(ern_add(kept, added));
      ern_value squashed = ern_tanh(ern_preactivation(cell, layer->cell_exponent));
      ern_store(state, cell);
      ern_store(h + u + n * ERN_LANES, ern_scale(ern_sigmoid(o[n]), squashed, 15));
    }
  }
}

/* h' = (1 - z) * n + z * h */
ERN_INLINE ern_value ern_blend(ern_gate z, ern_value n, ern_value h) {
  return ern_saturated(ern_add(ern_subtract(n, ern_scale(z, n, 15)), ern_scale(z, h, 15)));
}

/* n = tanh(W x + r * (U h + b)) */
ERN_INLINE void ern_gru_step(const ern_layer *layer, const ern_operand *x, int16_t *h) {
  ern_stream s = layer->stream;
  int u, k;
  for (u = 0; u < layer->units; u += ERN_UNITS) {
    ern_value r[ERN_VALUES], z[ERN_VALUES], input[ERN_VALUES], recurrent[ERN_VALUES];
    ern_gate_sums(&s, layer, x, r);
    ern_gate_sums(&s, layer, x, z);
    ern_shares(&s, layer, x, x + layer->input_columns, input, recurrent);
    for (k = 0; k < ERN_VALUES; k++) {
      int16_t *state = h + u + k * ERN_LANES;
      ern_value n = ern_tanh(ern_add(input[k], ern_scale(ern_sigmoid(r[k]), recurrent[k], 15)));
      ern_store(state, ern_blend(ern_sigmoid(z[k]), n, ern_load(state)));
    }
  }
}

/* n = tanh(W x + U (r * h)): every unit's r * h is needed first. `reset` becomes their view. */
ERN_INLINE void ern_gru_reset_before_step(const ern_layer *layer, const ern_operand *x, ern_operand *reset,
                                          int16_t *h) {
  ern_stream s = layer->stream;
  int u, k;
  for (u = 0; u < layer->units; u += ERN_UNITS) {
    ern_value r[ERN_VALUES];
    ern_gate_sums(&s, layer, x, r);
    for (k = 0; k < ERN_VALUES; k++) {
      int unit = u + k * ERN_LANES;
      ern_store_view(reset + unit, ern_scale(ern_sigmoid(r[k]), ern_load(h + unit), 15));
    }
  }
  for (u = 0; u < layer->units; u += ERN_UNITS) {
    ern_value z[ERN_VALUES], input[ERN_VALUES], recurrent[ERN_VALUES];
    ern_gate_sums(&s, layer, x, z);
    ern_shares(&s, layer, x, reset, input, recurrent);
    for (k = 0; k < ERN_VALUES; k++) {
      int16_t *state = h + u + k * ERN_LANES;
      ern_store(state, ern_blend(ern_sigmoid(z[k]), ern_tanh(ern_add(input[k], recurrent[k])), ern_load(state)));
    }
  }
}

/* h' = tanh(W x + U h + b) */
ERN_INLINE void ern_rnn_step(const ern_layer *layer, const ern_operand *x, int16_t *h) {
  ern_stream s = layer->stream;
  int u, k;
  for (u = 0; u < layer->units; u += ERN_UNITS) {
    ern_value n[ERN_VALUES];
    ern_gate_sums(&s, layer, x, n);
    for (k = 0; k < ERN_VALUES; k++) ern_store(h + u + k * ERN_LANES, ern_tanh(n[k]));
  }
}

/* The dense output: int16, then int8. A block is ERN_BLOCK rows. */
ERN_INLINE void ern_head(ern_stream s, const ern_operand *view, int columns, int left, int outputs, int8_t *y) {
  int n, k;
  for (n = 0; n < outputs; n += ERN_BLOCK) {
    int32_t wide[ERN_BLOCK];
    ern_dense(&s, view, columns, left, wide);
    for (k = 0; k < ERN_BLOCK && n + k < outputs; k++) y[n + k] = (int8_t)ern_view8(wide[k]);
  }
}
