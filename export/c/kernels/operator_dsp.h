/* A gate of the profile tflite-lstm on cores that multiply two half-words at once, see ern_factor in operator.h. */

#if defined(ERN_DSP)
#define ERN_GATE_ROUTINE

/* Packed sums become shares of pre-activations by the factor in r2 and r4-r8. A sum and its high word have one sign, or
 * that is 0. */
#define ERN_RESCALE                                                                                                    \
  "sub r10, r10, r11\n"                                                                                                \
  "sub r12, r12, lr\n"                                                                                                 \
  "asr r10, r10, r8\n"                                                                                                 \
  "lsl r11, r11, r2\n"                                                                                                 \
  "asr r12, r12, r8\n"                                                                                                 \
  "lsl lr, lr, r2\n"                                                                                                   \
  "smmla r9, r10, r7, r5\n"                                                                                            \
  "smmlar r10, r10, r4, r9\n"                                                                                          \
  "asr r10, r10, r6\n"                                                                                                 \
  "smmla r9, r11, r7, r5\n"                                                                                            \
  "smmlar r11, r11, r4, r9\n"                                                                                          \
  "asr r11, r11, r6\n"                                                                                                 \
  "smmla r9, r12, r7, r5\n"                                                                                            \
  "smmlar r12, r12, r4, r9\n"                                                                                          \
  "asr r12, r12, r6\n"                                                                                                 \
  "smmla r9, lr, r7, r5\n"                                                                                             \
  "smmlar lr, lr, r4, r9\n"                                                                                            \
  "asr lr, lr, r6\n"

/* The pre-activations of two packed blocks of four rows, whose operands lie one after the other. quads: of the first in
 * the lower half, of the second in the upper. */
ERN_NAKED const uint32_t *ern_packed_gate4(ERN_IN const uint32_t *words, ERN_IN const ern_operand *v,
                                           ERN_IN int quads, ERN_IN int32_t *out, ERN_IN const void *factors) {
  __asm__ volatile(
      ".syntax unified\n"
      "push {r2, r4-r11, lr}\n"
      "uxth r2, r2\n" ERN_PACKED_LOOP
      "ldr r8, [sp, #40]\n"
      "ldm r8, {r2, r4-r8}\n" ERN_RESCALE
      "ssat r10, #16, r10\n"
      "ssat r11, #16, r11\n"
      "ssat r12, #16, r12\n"
      "ssat lr, #16, lr\n"
      "stmia r3, {r10-r12, lr}\n"
      "pop {r2}\n"
      "lsrs r2, r2, #16\n" ERN_PACKED_LOOP
      "ldr r8, [sp, #36]\n"
      "add r8, r8, #24\n"
      "ldm r8, {r2, r4-r8}\n" ERN_RESCALE ERN_ADD_QUAD
      "pop {r4-r11, pc}\n");
}
#endif
