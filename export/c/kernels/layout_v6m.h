/* Four rows' weights of a column in a word, for cores without multiply-accumulate and 64-bit products: M0, M0+.
 *
 * A half-word holds two rows as 256 * a + b, like in layout_dsp.h: one load for four products, and of the two sums
 * (256 * a + b) * x and b * x the difference is 256 times the sum of a * x. Where |sum| < 2^23 does not hold, the word's
 * bytes are single weights (ERN_WIDE's rows). Multipliers are in words of multiplier << 8 | shift, see ern_requantize.
 *
 * The stream of a block of four rows, in words: what the accumulators start from, weights, multipliers. */

typedef int16_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)(ERN_W8A16 ? h : ern_view8(h)); }

typedef struct {
  const uint32_t *words;
} ern_stream;

#define ERN_PACKED 8 /* in place of a left shift: packed half-words, whose sums come times 2^8 */

/* sat16 of acc * 2^left * multiplier / 2^17, shifted further; both roundings are one, as the first is downwards. */
ERN_INLINE int32_t ern_requantize(int32_t acc, int32_t packed, int left) {
  int32_t scaled, multiplier = packed >> 8, high;
  if (left == ERN_GENERAL) return ern_requantize_general(acc, packed);
  scaled = ern_shift_left(acc, left);
  high = (scaled >> 16) * multiplier + (int32_t)(((uint32_t)scaled & 0xFFFFu) * (uint32_t)multiplier >> 16);
  return ern_sat16(((high >> (packed & 255)) + 1) >> 1);
}

#if defined(__GNUC__) && (defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__))

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

/* sum: of a row, times 2^8; becomes its share of a pre-activation. */
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
  "asrs " sum ", " sum ", #31\n"                                                                                       \
  "lsrs r3, " sum ", #17\n"                                                                                            \
  "mvns " sum ", " sum "\n"                                                                                            \
  "lsrs " sum ", " sum ", #17\n"                                                                                       \
  "subs " sum ", " sum ", r3\n"                                                                                        \
  "asrs r3, r3, #14\n"                                                                                                 \
  "subs " sum ", " sum ", r3\n"                                                                                        \
  "1:\n"

#define ERN_SAVE                                                                                                       \
  "push {r3-r7, lr}\n"                                                                                                 \
  "mov r4, r8\n"                                                                                                       \
  "mov r5, r9\n"                                                                                                       \
  "mov r6, r10\n"                                                                                                      \
  "mov r7, r11\n"                                                                                                      \
  "push {r4-r7}\n"

#define ERN_ACCUMULATORS(from, to)                                                                                     \
  from "mov r8, r4\n"                                                                                                  \
       "mov r9, r5\n"                                                                                                  \
       "mov r10, r6\n"                                                                                                 \
       "mov r11, r7\n" to

/* Four packed rows; where `columns` has a map in its upper half too, their sum with that one's, whose operand lies
 * behind. Returns where the next block starts. columns: multiples of 4; v: at an address divisible by 4. */
__attribute__((naked, noinline)) static const uint32_t *ern_packed4(ERN_IN const uint32_t *words,
                                                                    ERN_IN const ern_operand *v,
                                                                    ERN_IN uint32_t columns, ERN_IN int32_t *out) {
  __asm__ volatile(
      ".syntax unified\n" ERN_SAVE
      "lsrs r3, r2, #16\n"
      "push {r3}\n"
      "uxth r2, r2\n"
      "bl 5f\n"
      "pop {r2}\n"
      "cmp r2, #0\n"
      "beq 4f\n"
      "push {r4-r7}\n"
      "bl 5f\n"
      "mov r8, r0\n"
      "pop {r0-r3}\n"
      "adds r4, r4, r0\n"
      "adds r5, r5, r1\n"
      "adds r6, r6, r2\n"
      "adds r7, r7, r3\n"
      "mov r0, r8\n"
      "4:\n"
      "ldr r3, [sp, #16]\n"
      "stmia r3!, {r4-r7}\n"
      "pop {r4-r7}\n" ERN_ACCUMULATORS("", "pop {r3-r7, pc}\n")

      /* one map: r0 words, r1 operand, r2 columns; its four shares in r4-r7 */
      "5:\n"
      "lsls r3, r2, #30\n"
      "adds r2, r2, r2\n"
      "adds r2, r2, r1\n"
      "mov r12, r2\n" ERN_ACCUMULATORS("ldmia r0!, {r4-r7}\n", "")
      "lsls r3, r3, #1\n"
      "6:\n" ERN_PAIR(ERN_COLUMN) ERN_PAIR(ERN_COLUMN)
      "cmp r1, r12\n"
      "bne 6b\n"
      "mov r4, r8\n"
      "mov r5, r9\n"
      "mov r6, r10\n"
      "mov r7, r11\n"
      "subs r4, r4, r5\n"
      "subs r6, r6, r7\n"
      "lsls r5, r5, #8\n"
      "lsls r7, r7, #8\n" ERN_REQUANTIZE("r4") ERN_REQUANTIZE("r5") ERN_REQUANTIZE("r6") ERN_REQUANTIZE("r7")
      "mov r1, r12\n"
      "bx lr\n");
}
