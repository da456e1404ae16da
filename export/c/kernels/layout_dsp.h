/* Two rows' weights packed in a half-word, 256 * a + b, for cores that multiply two half-words at once: M4, M7, M33.
 *
 * A word holds them for two columns. `both` sums (256 * a + b) * x, `low` sums b * x; 256 times the sum of a * x is
 * their difference: one unpacking for four products. All stays within 32 bits as long as |sum| < 2^23, which whoever
 * packs the weights makes sure of; what does not fit is packed as single bytes instead (ern_wide4).
 *
 * The stream of a block of four rows, in words: what the accumulators start from, weights, multipliers. */

typedef struct {
  const uint32_t *words;
} ern_stream;

#define ERN_PACKED 8 /* in place of a left shift: packed half-words, whose sums come times 2^8 */

#define ERN_IN __attribute__((unused)) /* an argument that assembly reads */

/* Sums of single bytes. A word holds a row's weights of four columns in the order 0, 2, 1, 3. */
#if defined(ERN_DSP)

#define ERN_QUAD                                                                                                       \
  "ldmia r0!, {r4-r7}\n"                                                                                               \
  "ldrd r8, r9, [r1], #8\n"                                                                                            \
  "smlad r10, r4, r8, r10\n"                                                                                           \
  "sxtb16 r4, r4\n"                                                                                                    \
  "smlad r12, r5, r8, r12\n"                                                                                           \
  "sxtb16 r5, r5\n"                                                                                                    \
  "smlad r11, r4, r8, r11\n"                                                                                           \
  "smlad lr, r5, r8, lr\n"                                                                                             \
  "smlad r10, r6, r9, r10\n"                                                                                           \
  "sxtb16 r6, r6\n"                                                                                                    \
  "smlad r12, r7, r9, r12\n"                                                                                           \
  "sxtb16 r7, r7\n"                                                                                                    \
  "smlad r11, r6, r9, r11\n"                                                                                           \
  "smlad lr, r7, r9, lr\n"

/* Sums of 256 * a + b and of b for two pairs of rows, in r10, r11, r12 and lr. */
#define ERN_PACKED_LOOP                                                                                                \
  "ldmia r0!, {r10-r12, lr}\n"                                                                                         \
  "lsrs r2, r2, #1\n"                                                                                                  \
  "bcc 1f\n" ERN_QUAD                                                                                                  \
  "1: lsrs r2, r2, #1\n"                                                                                               \
  "bcc 2f\n"                                                                                                           \
  ".rept 2\n" ERN_QUAD ".endr\n"                                                                                       \
  "2: beq.w 4f\n"                                                                                                      \
  "3:\n"                                                                                                               \
  ".rept 4\n" ERN_QUAD ".endr\n"                                                                                       \
  "subs r2, #1\n"                                                                                                      \
  "bne 3b\n"                                                                                                           \
  "4:\n"

/* Four packed rows' sums times 2^8. */
#define ERN_PACKED_SUMS                                                                                                \
  ERN_PACKED_LOOP                                                                                                      \
  "sub r10, r10, r11\n"                                                                                                \
  "sub r12, r12, lr\n"                                                                                                 \
  "lsl r11, r11, #8\n"                                                                                                 \
  "lsl lr, lr, #8\n"

/* As shares of pre-activations. */
#define ERN_QUADS                                                                                                      \
  ERN_PACKED_SUMS                                                                                                      \
  "ldmia r0!, {r4-r7}\n"                                                                                               \
  "smmulr r10, r10, r4\n"                                                                                              \
  "smmulr r11, r11, r5\n"                                                                                              \
  "smmulr r12, r12, r6\n"                                                                                              \
  "smmulr lr, lr, r7\n"                                                                                                \
  "ssat r10, #16, r10\n"                                                                                               \
  "ssat r11, #16, r11\n"                                                                                               \
  "ssat r12, #16, r12\n"                                                                                               \
  "ssat lr, #16, lr\n"

/* What lies at r3 gets four sums more. */
#define ERN_ADD_QUAD                                                                                                   \
  "ldmia r3, {r4-r7}\n"                                                                                                \
  "add r4, r4, r10\n"                                                                                                  \
  "add r5, r5, r11\n"                                                                                                  \
  "add r6, r6, r12\n"                                                                                                  \
  "add r7, r7, lr\n"                                                                                                   \
  "stmia r3, {r4-r7}\n"

/* Four packed rows; returns where the next block starts. v: quads * 4 values, at an address divisible by 4. */
ERN_NAKED const uint32_t *ern_packed4(ERN_IN const uint32_t *words, ERN_IN const ern_operand *v,
                                      ERN_IN int quads, ERN_IN int32_t *out) {
  __asm__ volatile(
      ".syntax unified\n"
      "push {r4-r11, lr}\n" ERN_QUADS
      "stmia r3, {r10-r12, lr}\n"
      "pop {r4-r11, pc}\n");
}

/* The sum of two packed blocks of four rows, whose operands lie one after the other. quads: of the first in the lower
 * half, of the second in the upper. */
ERN_NAKED const uint32_t *ern_packed_sum4(ERN_IN const uint32_t *words, ERN_IN const ern_operand *v,
                                          ERN_IN int quads, ERN_IN int32_t *out) {
  __asm__ volatile(
      ".syntax unified\n"
      "push {r2, r4-r11, lr}\n"
      "uxth r2, r2\n" ERN_QUADS
      "stmia r3, {r10-r12, lr}\n"
      "pop {r2}\n"
      "lsrs r2, r2, #16\n" ERN_QUADS ERN_ADD_QUAD
      "pop {r4-r11, pc}\n");
}

/* The sums alone, times 2^8. */
ERN_NAKED const uint32_t *ern_packed_sums4(ERN_IN const uint32_t *words, ERN_IN const ern_operand *v,
                                           ERN_IN int quads, ERN_IN int32_t *sums) {
  __asm__ volatile(
      ".syntax unified\n"
      "push {r4-r11, lr}\n" ERN_PACKED_SUMS
      "stmia r3, {r10-r12, lr}\n"
      "pop {r4-r11, pc}\n");
}

#define ERN_ROW(weights, sum)                                                                                          \
  "sxtb16 r3, " weights "\n"                                                                                           \
  "sxtb16 " weights ", " weights ", ror #8\n"                                                                          \
  "smlad " sum ", r3, r8, " sum "\n"                                                                                   \
  "smlad " sum ", " weights ", r9, " sum "\n"

#define ERN_WIDE_QUAD                                                                                                  \
  "ldmia r0!, {r4-r7}\n"                                                                                               \
  "ldrd r8, r9, [r1], #8\n" ERN_ROW("r4", "r10") ERN_ROW("r5", "r11") ERN_ROW("r6", "r12") ERN_ROW("r7", "lr")

/* The sums of four rows of single bytes. */
ERN_NAKED const uint32_t *ern_wide4(ERN_IN const uint32_t *words, ERN_IN const ern_operand *v,
                                    ERN_IN int quads, ERN_IN int32_t *sums) {
  __asm__ volatile(
      ".syntax unified\n"
      "push {r3-r11, lr}\n"
      "ldmia r0!, {r10-r12, lr}\n"
      "lsrs r2, r2, #1\n"
      "bcc 1f\n" ERN_WIDE_QUAD
      "1: beq.w 3f\n"
      "2:\n"
      ".rept 2\n" ERN_WIDE_QUAD ".endr\n"
      "subs r2, #1\n"
      "bne 2b\n"
      "3: pop {r3}\n"
      "stmia r3, {r10-r12, lr}\n"
      "pop {r4-r11, pc}\n");
}

#else

/* Sums of four rows times 2^8. */
static const uint32_t *ern_packed_sums4(const uint32_t *words, const ern_operand *v, int quads, int32_t *sums) {
  uint32_t both[2] = {words[0], words[2]}, low[2] = {words[1], words[3]};
  int pair, column;
  words += 4;
  for (column = 0; column < 4 * quads; column += 2, words += 2) {
    for (pair = 0; pair < 2; pair++) {
      int32_t first = (int16_t)(words[pair] & 0xFFFFu), second = (int16_t)(words[pair] >> 16);
      both[pair] += (uint32_t)(first * v[column]) + (uint32_t)(second * v[column + 1]);
      low[pair] += (uint32_t)((int8_t)(first & 255) * v[column]) + (uint32_t)((int8_t)(second & 255) * v[column + 1]);
    }
  }
  for (pair = 0; pair < 2; pair++) {
    sums[2 * pair] = (int32_t)(both[pair] - low[pair]);
    sums[2 * pair + 1] = (int32_t)(low[pair] << 8);
  }
  return words;
}

static const uint32_t *ern_packed4(const uint32_t *words, const ern_operand *v, int quads, int32_t *out) {
  int row;
  words = ern_packed_sums4(words, v, quads, out);
  for (row = 0; row < 4; row++) out[row] = ern_requantize(out[row], (int32_t)*words++, 0);
  return words;
}

static const uint32_t *ern_packed_sum4(const uint32_t *words, const ern_operand *v, int quads, int32_t *out) {
  int32_t second[4];
  int n, first = quads & 0xFFFF;
  words = ern_packed4(words, v, first, out);
  words = ern_packed4(words, v + 4 * first, quads >> 16, second);
  for (n = 0; n < 4; n++) out[n] += second[n];
  return words;
}

static const uint32_t *ern_wide4(const uint32_t *words, const ern_operand *v, int quads, int32_t *sums) {
  int row, quad;
  for (row = 0; row < 4; row++) {
    sums[row] = (int32_t)words[row];
    for (quad = 0; quad < quads; quad++) {
      uint32_t word = words[4 + 4 * quad + row];
      const ern_operand *x = v + 4 * quad;
      sums[row] += (int8_t)(word & 255u) * x[0] + (int8_t)(word >> 16 & 255u) * x[1];
      sums[row] += (int8_t)(word >> 8 & 255u) * x[2] + (int8_t)(word >> 24) * x[3];
    }
  }
  return words + 4 + 4 * quads;
}
#endif

/* The sums of four rows, bias + weights . v, of packed ones times 2^8. columns: a multiple of 4. */
ERN_INLINE void ern_sums4(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  if (left == ERN_PACKED) {
    stream->words = ern_packed_sums4(stream->words, v, columns / 4, out);
  } else {
    stream->words = ern_wide4(stream->words, v, columns / 4, out);
  }
}

/* Four rows of a dense map, requantized: out[row] = sat16((bias + weights . v) * multiplier). columns: a multiple of 4. */
ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  int n;
  if (left == ERN_PACKED) {
    stream->words = ern_packed4(stream->words, v, columns / 4, out);
    return;
  }
  stream->words = ern_wide4(stream->words, v, columns / 4, out);
  for (n = 0; n < 4; n++) out[n] = ern_requantize(out[n], (int32_t)*stream->words++, left);
}

/* The sum of two such maps, of operands that lie one after the other. */
ERN_INLINE void ern_sum(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                         int next_left, int32_t out[4]) {
  int32_t second[4];
  int n;
  if (left == ERN_PACKED && next_left == ERN_PACKED) {
    stream->words = ern_packed_sum4(stream->words, v, columns / 4 | next_columns / 4 << 16, out);
    return;
  }
  ern_dense(stream, v, columns, left, out);
  ern_dense(stream, v + columns, next_columns, next_left, second);
  for (n = 0; n < 4; n++) out[n] += second[n];
}
