/* Four rows' weights of a column in a word, for cores without multiply-accumulate and 64-bit products: M0, M0+.
 *
 * A half-word holds two rows as 256 * a + b, as in layout_dsp.h: of the sums of (256 * a + b) * x and of b * x, the
 * difference is 256 times the sum of a * x, and one load does for two rows. Where |sum| < 2^23 does not hold, a word's
 * bytes are four rows' weights instead (ERN_WIDE_COLUMN).
 *
 * The stream of a block of four rows, in words: what the accumulators start from; weights; of single bytes how far the
 * sums are shifted left (unless ERN_GENERAL); multipliers, as multiplier << 8 | shift. See ern_requantize below. */

typedef struct {
  const uint32_t *words;
} ern_stream;

#define ERN_PACKED 8 /* in place of a left shift: packed half-words, whose sums come times 2^8 */

#if defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN) && (defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__))

#define ERN_IN __attribute__((unused)) /* an argument that assembly reads */

/* One column: r8 and r10 sum both rows' products, r9 and r11 the second row's. */
#define ERN_COLUMN(word, x)                                                                                            \
  "sxth r6, " word "\n"                                                                                                \
  "sxtb r7, " word "\n"                                                                                                \
  "muls r6, " x ", r6\n"                                                                                               \
  "muls r7, " x ", r7\n"                                                                                               \
  "add r8, r6\n"                                                                                                       \
  "add r9, r7\n"                                                                                                       \
  "asrs " word ", " word ", #16\n"                                                                                     \
  "sxtb r7, " word "\n"                                                                                                \
  "muls " word ", " x ", " word "\n"                                                                                   \
  "muls r7, " x ", r7\n"                                                                                               \
  "add r10, " word "\n"                                                                                                \
  "add r11, r7\n"

/* One column: a row each in r8-r11. */
#define ERN_WIDE_COLUMN(word, x)                                                                                       \
  "sxtb r6, " word "\n"                                                                                                \
  "muls r6, " x ", r6\n"                                                                                               \
  "sxth r7, " word "\n"                                                                                                \
  "asrs r7, r7, #8\n"                                                                                                  \
  "add r8, r6\n"                                                                                                       \
  "muls r7, " x ", r7\n"                                                                                               \
  "asrs " word ", " word ", #16\n"                                                                                     \
  "add r9, r7\n"                                                                                                       \
  "sxtb r6, " word "\n"                                                                                                \
  "asrs " word ", " word ", #8\n"                                                                                      \
  "muls r6, " x ", r6\n"                                                                                               \
  "muls " word ", " x ", " word "\n"                                                                                   \
  "add r10, r6\n"                                                                                                      \
  "add r11, " word "\n"

#define ERN_PAIR(column)                                                                                               \
  "ldmia r1!, {r5}\n"                                                                                                  \
  "ldmia r0!, {r2, r3}\n"                                                                                              \
  "sxth r4, r5\n"                                                                                                      \
  "asrs r5, r5, #16\n" column("r2", "r4") column("r3", "r5")

/* A row's shifted sum becomes its share of a pre-activation, see ern_requantize. asrs reads 8 bits of r2. */
#define ERN_REQUANTIZE(sum)                                                                                            \
  "ldmia r0!, {r2}\n"                                                                                                  \
  "uxth r3, " sum "\n"                                                                                                 \
  "lsrs r1, r2, #8\n"                                                                                                  \
  "asrs " sum ", " sum ", #16\n"                                                                                       \
  "muls r3, r1, r3\n"                                                                                                  \
  "muls " sum ", r1, " sum "\n"                                                                                        \
  "lsrs r3, r3, #16\n"                                                                                                 \
  "adds " sum ", " sum ", r3\n"                                                                                        \
  "asrs " sum ", " sum ", r2\n"                                                                                        \
  "adds " sum ", #1\n"                                                                                                 \
  "asrs " sum ", " sum ", #1\n"                                                                                        \
  "sxth r3, " sum "\n"                                                                                                 \
  "cmp r3, " sum "\n"                                                                                                  \
  "beq 1f\n"                                                                                                           \
  "movs r3, #1\n"                                                                                                      \
  "lsls r3, r3, #15\n"                                                                                                 \
  "subs r3, #1\n"                                                                                                      \
  "asrs " sum ", " sum ", #31\n"                                                                                       \
  "eors " sum ", r3\n"                                                                                                 \
  "1:\n"

#define ERN_TO_ACCUMULATORS                                                                                            \
  "mov r8, r4\n"                                                                                                       \
  "mov r9, r5\n"                                                                                                       \
  "mov r10, r6\n"                                                                                                      \
  "mov r11, r7\n"

#define ERN_FROM_ACCUMULATORS                                                                                          \
  "mov r4, r8\n"                                                                                                       \
  "mov r5, r9\n"                                                                                                       \
  "mov r6, r10\n"                                                                                                      \
  "mov r7, r11\n"

/* Back to 2 unless equal: too far for bne. */
#define ERN_FAR                                                                                                        \
  "beq 4f\n"                                                                                                           \
  "b 2b\n"                                                                                                             \
  "4:\n"

/* Sums of a block in r4-r7. r0: words, r1: operand, r2: columns, a multiple of 4. r12: where the operand ends. */
#define ERN_SUMS(column, again)                                                                                        \
  "lsls r3, r2, #1\n"                                                                                                  \
  "adds r3, r3, r1\n"                                                                                                  \
  "mov r12, r3\n"                                                                                                      \
  "ldmia r0!, {r4-r7}\n" ERN_TO_ACCUMULATORS                                                                           \
  "lsls r2, r2, #30\n"                                                                                                 \
  "bcs 3f\n"                                                                                                           \
  "2:\n" ERN_PAIR(column) ERN_PAIR(column)                                                                             \
  "3:\n" ERN_PAIR(column) ERN_PAIR(column)                                                                             \
  "cmp r1, r12\n"                                                                                                      \
  again ERN_FROM_ACCUMULATORS

/* Of sums of 256 * a + b and of b those of 256 * a and of 256 * b. */
#define ERN_UNPACK                                                                                                     \
  "subs r4, r4, r5\n"                                                                                                  \
  "subs r6, r6, r7\n"                                                                                                  \
  "lsls r5, r5, #8\n"                                                                                                  \
  "lsls r7, r7, #8\n"

#define ERN_ENTER                                                                                                      \
  ".syntax unified\n"                                                                                                  \
  "push {r3-r7, lr}\n" ERN_FROM_ACCUMULATORS                                                                           \
  "push {r4-r7}\n"

#define ERN_LEAVE                                                                                                      \
  "ldr r3, [sp, #16]\n"                                                                                                \
  "stmia r3!, {r4-r7}\n"                                                                                               \
  "pop {r4-r7}\n" ERN_TO_ACCUMULATORS                                                                                  \
  "pop {r3-r7, pc}\n"

/* The shares of a map, made by `sums`, or the sum of two maps'. r2: columns, of a second map in the upper half. */
#define ERN_SHARES(sums)                                                                                               \
  ERN_ENTER                                                                                                            \
  "lsrs r3, r2, #16\n"                                                                                                 \
  "push {r3}\n"                                                                                                        \
  "uxth r2, r2\n"                                                                                                      \
  "bl 5f\n"                                                                                                            \
  "pop {r2}\n"                                                                                                         \
  "cmp r2, #0\n"                                                                                                       \
  "beq 6f\n"                                                                                                           \
  "push {r4-r7}\n"                                                                                                     \
  "bl 5f\n"                                                                                                            \
  "mov r8, r0\n"                                                                                                       \
  "pop {r0-r3}\n"                                                                                                      \
  "adds r4, r4, r0\n"                                                                                                  \
  "adds r5, r5, r1\n"                                                                                                  \
  "adds r6, r6, r2\n"                                                                                                  \
  "adds r7, r7, r3\n"                                                                                                  \
  "mov r0, r8\n"                                                                                                       \
  "6:\n" ERN_LEAVE "5:\n" sums ERN_REQUANTIZE("r4") ERN_REQUANTIZE("r5") ERN_REQUANTIZE("r6") ERN_REQUANTIZE("r7")     \
  "mov r1, r12\n"                                                                                                      \
  "bx lr\n"

/* Four rows of a map; where `columns` has a map in its upper half too, their sum with that one's, whose operand lies
 * behind. Returns where the next block starts. columns: multiples of 4; v: at an address divisible by 4. */
#define ERN_ROUTINE(name)                                                                                              \
  ERN_NAKED const uint32_t *name(ERN_IN const uint32_t *words,                                                         \
                                                               ERN_IN const ern_operand *v, ERN_IN uint32_t columns,   \
                                                               ERN_IN int32_t *out)
ERN_ROUTINE(ern_packed4) {
  __asm__ volatile(ERN_SHARES(ERN_SUMS(ERN_COLUMN, "bne 2b\n")
                              ERN_UNPACK));
}

ERN_ROUTINE(ern_wide4) {
  __asm__ volatile(ERN_SHARES(ERN_SUMS(ERN_WIDE_COLUMN, ERN_FAR)
                              "ldmia r0!, {r3}\n"
                              "lsls r4, r3\n"
                              "lsls r5, r3\n"
                              "lsls r6, r3\n"
                              "lsls r7, r3\n"));
}

/* The sums alone: of four rows of single bytes, of packed ones times 2^8. */
ERN_ROUTINE(ern_wide_sums4) { __asm__ volatile(ERN_ENTER ERN_SUMS(ERN_WIDE_COLUMN, ERN_FAR) ERN_LEAVE); }
ERN_ROUTINE(ern_packed_sums4) {
  __asm__ volatile(ERN_ENTER ERN_SUMS(ERN_COLUMN, "bne 2b\n") ERN_UNPACK ERN_LEAVE);
}

#else

/* sat16(acc * 2^left * multiplier * 2^-(17 + shift)): of a product what is below 2^16 is cut off, then rounded. */
ERN_INLINE int32_t ern_requantize(int32_t acc, uint32_t packed, int left) {
  int32_t scaled = ern_shift_left(acc, left), multiplier = (int32_t)(packed >> 8);
  int32_t high = (scaled >> 16) * multiplier + (int32_t)(((uint32_t)scaled & 0xFFFFu) * (packed >> 8) >> 16);
  return ern_sat16(((high >> (packed & 255u)) + 1) >> 1);
}

static const uint32_t *ern_wide_sums4(const uint32_t *words, const ern_operand *v, uint32_t columns, int32_t *sums) {
  const uint32_t *word = words + 4;
  uint32_t row, column;
  for (row = 0; row < 4; row++) sums[row] = (int32_t)words[row];
  for (column = 0; column < columns; column++, word++) {
    for (row = 0; row < 4; row++) sums[row] += (int8_t)(*word >> 8 * row & 255u) * v[column];
  }
  return word;
}

static const uint32_t *ern_wide_share4(const uint32_t *words, const ern_operand *v, uint32_t columns, int32_t *out) {
  int n, left;
  words = ern_wide_sums4(words, v, columns, out);
  left = (int)*words++;
  for (n = 0; n < 4; n++) out[n] = ern_requantize(out[n], *words++, left);
  return words;
}

/* Sums of four packed rows times 2^8. */
static const uint32_t *ern_packed_sums4(const uint32_t *words, const ern_operand *v, uint32_t columns, int32_t *sums) {
  uint32_t both[2] = {words[0], words[2]}, low[2] = {words[1], words[3]}, pair, column;
  for (words += 4, column = 0; column < columns; column++, words++) {
    for (pair = 0; pair < 2; pair++) {
      int32_t half = (int16_t)(*words >> 16 * pair & 0xFFFFu);
      both[pair] += (uint32_t)(half * v[column]);
      low[pair] += (uint32_t)((int8_t)(half & 255) * v[column]);
    }
  }
  for (pair = 0; pair < 2; pair++) {
    *sums++ = (int32_t)(both[pair] - low[pair]);
    *sums++ = (int32_t)(low[pair] << 8);
  }
  return words;
}

static const uint32_t *ern_packed_share4(const uint32_t *words, const ern_operand *v, uint32_t columns, int32_t *out) {
  int row;
  words = ern_packed_sums4(words, v, columns, out);
  for (row = 0; row < 4; row++) out[row] = ern_requantize(out[row], *words++, 0);
  return words;
}

#define ERN_ROUTINE(name, share)                                                                                       \
  static const uint32_t *name(const uint32_t *words, const ern_operand *v, uint32_t columns, int32_t *out) {           \
    int32_t second[4];                                                                                                 \
    int n;                                                                                                             \
    words = share(words, v, columns & 0xFFFFu, out);                                                                   \
    if (columns >> 16 == 0) return words;                                                                              \
    words = share(words, v + (columns & 0xFFFFu), columns >> 16, second);                                              \
    for (n = 0; n < 4; n++) out[n] += second[n];                                                                       \
    return words;                                                                                                      \
  }
ERN_ROUTINE(ern_packed4, ern_packed_share4)
ERN_ROUTINE(ern_wide4, ern_wide_share4)
#endif

#define ERN_SMALL_PRODUCTS /* of 32 bits */

/* The sums of four rows, bias + weights . v, of packed ones times 2^8. */
ERN_INLINE void ern_sums4(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  if (left == ERN_PACKED) {
    stream->words = ern_packed_sums4(stream->words, v, (uint32_t)columns, out);
  } else {
    stream->words = ern_wide_sums4(stream->words, v, (uint32_t)columns, out);
  }
}

/* Four rows of a dense map, requantized: out[row] = sat16((bias + weights . v) * multiplier). */
ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[4]) {
  int n;
  if (left == ERN_PACKED) {
    stream->words = ern_packed4(stream->words, v, (uint32_t)columns, out);
  } else if (left != ERN_GENERAL) {
    stream->words = ern_wide4(stream->words, v, (uint32_t)columns, out);
  } else {
    stream->words = ern_wide_sums4(stream->words, v, (uint32_t)columns, out);
    for (n = 0; n < 4; n++) out[n] = ern_requantize_general(out[n], (int32_t)*stream->words++);
  }
}

/* The sum of two such maps, of operands that lie one after the other. */
ERN_INLINE void ern_sum(ern_stream *stream, const ern_operand *v, int columns, int left, int next_columns,
                         int next_left, int32_t out[4]) {
  uint32_t both = (uint32_t)columns | (uint32_t)next_columns << 16;
  int32_t second[4];
  int n;
  if (left == ERN_PACKED && next_left == ERN_PACKED) {
    stream->words = ern_packed4(stream->words, v, both, out);
  } else if (left != ERN_PACKED && left != ERN_GENERAL && next_left != ERN_PACKED && next_left != ERN_GENERAL) {
    stream->words = ern_wide4(stream->words, v, both, out);
  } else {
    ern_dense(stream, v, columns, left, out);
    ern_dense(stream, v + columns, next_columns, next_left, second);
    for (n = 0; n < 4; n++) out[n] += second[n];
  }
}
