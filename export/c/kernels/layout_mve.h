/* Weights of sixteen columns of a row beside each other, four rows after another, for cores that multiply and add
 * sixteen bytes at once: M55, M85. Two blocks hold eight units' gate: the even units' rows, then the odd ones'.
 *
 * The stream of a block of four rows, in words of four bytes, the first one lowest: biases, weights
 * [columns / 16][4][16], multipliers. */

typedef struct {
  const uint32_t *words;
} ern_stream;

#define ERN_UNITS 8

#if defined(ERN_VECTORS)

#define ERN_VALUES 1

/* Sixteen columns of four rows; a register for the operand, and two for weights in turn. */
#if ERN_W8A16
#define ERN_COLUMNS8(last)                                                                                             \
  "vldrh.u16 %q[sums], [%[v]], #16\n"                                                                                  \
  "vldrb.s16 %q[m], [%[w], #16]\n"                                                                                     \
  "vmladava.s16 %[b], %q[sums], %q[m]\n"                                                                               \
  "vldrb.s16 %q[t], [%[w], #32]\n"                                                                                     \
  "vmladava.s16 %[c], %q[sums], %q[t]\n"                                                                               \
  "vldrb.s16 %q[m], [%[w], #48]\n"                                                                                     \
  "vmladava.s16 %[d], %q[sums], %q[m]\n"                                                                               \
  "vldrb.s16 %q[t], [%[w]], #" last "\n"                                                                               \
  "vmladava.s16 %[a], %q[sums], %q[t]\n"
#define ERN_COLUMNS16 ERN_COLUMNS8("8") ERN_COLUMNS8("56")
#else
#define ERN_COLUMNS16                                                                                                  \
  "vldrb.u8 %q[sums], [%[v]], #16\n"                                                                                   \
  "vldrb.u8 %q[m], [%[w]], #16\n"                                                                                      \
  "vmladava.s8 %[a], %q[sums], %q[m]\n"                                                                                \
  "vldrb.u8 %q[t], [%[w]], #16\n"                                                                                      \
  "vmladava.s8 %[b], %q[sums], %q[t]\n"                                                                                \
  "vldrb.u8 %q[m], [%[w]], #16\n"                                                                                      \
  "vmladava.s8 %[c], %q[sums], %q[m]\n"                                                                                \
  "vldrb.u8 %q[t], [%[w]], #16\n"                                                                                      \
  "vmladava.s8 %[d], %q[sums], %q[t]\n"
#endif

#define ERN_REPEATED(columns) "dls lr, %[n]\n.p2align 2\n1:\n" columns "le lr, 1b\n"

/* The sums of four rows. */
#define ERN_ROWS4(count, columns)                                                                                      \
  __asm__ volatile(                                                                                                    \
      "ldrd %[a], %[b], [%[w]], #8\n"                                                                                  \
      "ldrd %[c], %[d], [%[w]], #8\n" columns                                                                          \
      "vmov %q[sums][2], %q[sums][0], %[a], %[c]\n"                                                                    \
      "vmov %q[sums][3], %q[sums][1], %[b], %[d]\n"                                                                    \
      : [w] "+l"(words), [v] "+r"(*v), [a] "=&Te"(a), [b] "=&Te"(b), [c] "=&Te"(c), [d] "=&Te"(d),                     \
        [sums] "=&w"(sums), [m] "=&w"(*multipliers), [t] "=&w"(other)                                                  \
      : [n] "r"(count)                                                                                                 \
      : "lr", "memory")

/* The sums of the next four rows, which leave v behind what it read; with `then` their multipliers too. */
#define ERN_SUMS4(name, then)                                                                                          \
ERN_INLINE int32x4_t name(ern_stream *stream, const ern_operand **v, int columns, int32x4_t *multipliers) {            \
  const uint32_t *words = stream->words;                                                                               \
  int32_t a, b, c, d;                                                                                                  \
  int32x4_t sums, other;                                                                                               \
  if (columns == 16) {                                                                                                 \
    ERN_ROWS4(0, ERN_COLUMNS16 then);                                                                                  \
  } else if (columns == 32) {                                                                                          \
    ERN_ROWS4(0, ERN_COLUMNS16 ERN_COLUMNS16 then);                                                                    \
  } else if (columns % 32 == 0) {                                                                                      \
    ERN_ROWS4(columns / 32, ERN_REPEATED(ERN_COLUMNS16 ERN_COLUMNS16) then);                                           \
  } else {                                                                                                             \
    ERN_ROWS4(columns / 16, ERN_REPEATED(ERN_COLUMNS16) then);                                                         \
  }                                                                                                                    \
  stream->words = words;                                                                                               \
  return sums;                                                                                                         \
}
ERN_SUMS4(ern_row_sums4, )
ERN_SUMS4(ern_block_sums4, "vldrw.u32 %q[m], [%[w]], #16\n")

/* The next block, requantized but for the saturation. */
ERN_INLINE int32x4_t ern_rows(ern_stream *stream, const ern_operand **v, int columns, int left) {
  int32x4_t multipliers, sums = ern_block_sums4(stream, v, columns, &multipliers);
  if (left == ERN_GENERAL) {
    int32_t acc[4], packed[4];
    int n;
    vst1q_s32(acc, sums);
    vst1q_s32(packed, multipliers);
    for (n = 0; n < 4; n++) acc[n] = ern_requantize_general(acc[n], packed[n]);
    return vld1q_s32(acc);
  }
  if (left != 0) sums = vshlq_r_s32(sums, left);
  return vrmulhq_s32(sums, multipliers);
}

/* The next four blocks: eight rows of a map of `v`, and eight of a map of `next`. */
ERN_INLINE void ern_dense8(ern_stream *stream, const ern_operand *v, int columns, int left, const ern_operand *next,
                           int next_columns, int next_left, ern_value *out, ern_value *next_out) {
  const ern_operand *place = v, *next_place = next;
  int32x4_t even = ern_rows(stream, &place, columns, left);
  int32x4_t next_even = ern_rows(stream, &next_place, next_columns, next_left);
  *out = ern_narrow(even, ern_rows(stream, &v, columns, left));
  *next_out = ern_narrow(next_even, ern_rows(stream, &next, next_columns, next_left));
}

/* The sum of two such maps, of operands that lie one after the other. */
ERN_INLINE void ern_sum8(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                         int next_left, ern_value *out) {
  const ern_operand *place = v;
  int32x4_t even = ern_rows(stream, &place, columns, left);
  int32x4_t next_even = ern_rows(stream, &place, next_columns, next_left);
  int16x8_t first = ern_narrow(even, ern_rows(stream, &v, columns, left));
  *out = ern_add(first, ern_narrow(next_even, ern_rows(stream, &v, next_columns, next_left)));
}

ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  int32x4_t rows = ern_rows(stream, &v, columns, left);
  vst1q_s32(out, vmovlbq_s16(ern_narrow(rows, rows)));
}

/* The view of a value, and of a whole hidden state. */
#if ERN_W8A16
ERN_INLINE void ern_store_view(ern_operand *view, ern_value v) { vstrhq_s16(view, v); }
#define ERN_VIEW8 "vstrh.16 q0, [%[view]], #16\n"
#else
ERN_INLINE void ern_store_view(ern_operand *view, ern_value v) {
  int16x8_t beyond = vqaddq_s16(v, vorrq_n_s16(vshrq_n_s16(v, 15), 1));
  vstrbq_s16(view, vreinterpretq_s16_s8(vqrshrnbq_n_s16(vreinterpretq_s8_s16(v), beyond, 8)));
}
#define ERN_VIEW8                                                                                                      \
  "vshr.s16 q1, q0, #15\n"                                                                                             \
  "vorr.i16 q1, #1\n"                                                                                                  \
  "vqadd.s16 q0, q0, q1\n"                                                                                             \
  "vqrshrnb.s16 q0, q0, #8\n"                                                                                          \
  "vstrb.16 q0, [%[view]], #8\n"
#endif

ERN_INLINE void ern_view_of(const int16_t *h, int units, ern_operand *view) {
  __asm__ volatile(
      "dlstp.16 lr, %[n]\n"
      "1:\n"
      "vldrh.u16 q0, [%[h]], #16\n" ERN_VIEW8
      "letp lr, 1b\n"
      : [h] "+r"(h), [view] "+l"(view)
      : [n] "r"(units)
      : "lr", "q0", "q1", "memory");
}

#define ERN_COPIES

ERN_INLINE void ern_copy(const void *from, int bytes, void *to) {
  __asm__ volatile(
      "dlstp.8 lr, %[n]\n"
      "1:\n"
      "vldrb.u8 q0, [%[from]], #16\n"
      "vstrb.8 q0, [%[to]], #16\n"
      "letp lr, 1b\n"
      : [from] "+r"(from), [to] "+r"(to)
      : [n] "r"(bytes)
      : "lr", "q0", "memory");
}
ERN_INLINE void ern_take_input(const ern_input *x, int count, ern_operand *operand) {
  ern_copy(x, count * (int)sizeof *x, operand);
}
ERN_INLINE void ern_take_view(const ern_operand *view, int count, ern_operand *operand) {
  ern_copy(view, count * (int)sizeof *view, operand);
}
ERN_INLINE void ern_give_state(const int16_t *h, int count, int16_t *y) { ern_copy(h, count * (int)sizeof *h, y); }

#else

#define ERN_VALUES 8

/* Byte n of a stream's words. */
ERN_INLINE int32_t ern_byte(const uint32_t *words, int n) { return (int8_t)(words[n / 4] >> (n % 4 * 8) & 255u); }

/* The sums of the next four rows: bias + weights . v. left: of no account here. */
ERN_INLINE void ern_sums4(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  const uint32_t *words = stream->words;
  int row, n;
  for (row = 0; row < 4; row++) {
    out[row] = (int32_t)words[row];
    for (n = 0; n < columns; n++) out[row] += ern_byte(words + 4, n / 16 * 64 + row * 16 + n % 16) * v[n];
  }
  stream->words = words + 4 + columns;
  (void)left;
}

/* The next block: out[row * step] = sat16((bias + weights . v) * multiplier). */
ERN_INLINE void ern_rows(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t *out, int step) {
  int32_t sums[4];
  int row;
  ern_sums4(stream, v, columns, left, sums);
  for (row = 0; row < 4; row++) out[row * step] = ern_requantize(sums[row], (int32_t)*stream->words++, left);
}

ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  ern_rows(stream, v, columns, left, out, 1);
}

/* The next four blocks: eight rows of a map of `v`, and eight of a map of `next`. */
ERN_INLINE void ern_dense8(ern_stream *stream, const ern_operand *v, int columns, int left, const ern_operand *next,
                           int next_columns, int next_left, int32_t out[8], int32_t next_out[8]) {
  int odd;
  for (odd = 0; odd < 2; odd++) {
    ern_rows(stream, v, columns, left, out + odd, 2);
    ern_rows(stream, next, next_columns, next_left, next_out + odd, 2);
  }
}

/* The sum of two such maps, of operands that lie one after the other. */
ERN_INLINE void ern_sum8(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                         int next_left, int32_t out[8]) {
  int32_t second[8];
  int n;
  ern_dense8(stream, v, columns, left, v + columns, next_columns, next_left, out, second);
  for (n = 0; n < 8; n++) out[n] += second[n];
}
#endif
