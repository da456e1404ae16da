/* Integers of edgernn's arithmetic, version 1: what every layout of the weights shares. C99, no library.
 *
 * Hidden state, gates and operands of products are Q0.15; pre-activations have the scale 1/3072. A gate (a sigmoid) is
 * never negative, so that a product's sign, on which its rounding depends, is that of the other factor. */

#if defined(__GNUC__)
#define ERN_INLINE static inline __attribute__((always_inline, unused))
#define ERN_APART static __attribute__((noinline, unused))
#if defined(__x86_64__)
#define ERN_ALIGNED __attribute__((aligned(64)))
#else
#define ERN_ALIGNED __attribute__((aligned(16)))
#endif
#define ERN_NAKED __attribute__((naked, noinline, ERN_OPAQUE)) static
#define ERN_ROLLED _Pragma("GCC unroll 1")
#define ERN_UNROLLED _Pragma("GCC unroll 4")
#define ERN_LOOP __asm__ volatile("" : : : "memory") /* in a loop that is not to become a call of memset or memcpy */
#else
#define ERN_INLINE static inline
#define ERN_APART static
#define ERN_ALIGNED
#define ERN_ROLLED
#define ERN_UNROLLED
#define ERN_LOOP
#endif

/* That a compiler must not conclude anything from the empty bodies of functions in assembly. */
#define ERN_OPAQUE unused
#if defined(__has_attribute)
#if __has_attribute(noipa)
#undef ERN_OPAQUE
#define ERN_OPAQUE unused, noipa
#endif
#endif

#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && !defined(__ARM_BIG_ENDIAN)
#define ERN_DSP
#endif

typedef char ern_needs_arithmetic_shift[(-3 >> 1) == -2 ? 1 : -1];
typedef char ern_needs_32_bit_int[sizeof(int) >= 4 ? 1 : -1];

#if ERN_W8A16
typedef int16_t ern_input;
#else
typedef int8_t ern_input;
#endif

#define ERN_GENERAL (-1) /* in place of a left shift: multipliers of any size, see ern_requantize_general */

/* v, saturated to 8, 15, 16 or 17 bits. */
#if defined(__GNUC__) && defined(__ARM_FEATURE_SAT)
#define ERN_SATURATE(bits, v)                                                                                          \
  int32_t saturated;                                                                                                   \
  __asm__("ssat %0, #" bits ", %1" : "=r"(saturated) : "r"(v));                                                        \
  return saturated
ERN_INLINE int32_t ern_sat17(int32_t v) { ERN_SATURATE("17", v); }
ERN_INLINE int32_t ern_sat16(int32_t v) { ERN_SATURATE("16", v); }
ERN_INLINE int32_t ern_sat15(int32_t v) { ERN_SATURATE("15", v); }
ERN_INLINE int32_t ern_sat8(int32_t v) { ERN_SATURATE("8", v); }
#else
#define ERN_SATURATE(bound, v) return v < -bound ? -bound : v >= bound ? bound - 1 : v
ERN_INLINE int32_t ern_sat17(int32_t v) { ERN_SATURATE(65536, v); }
ERN_INLINE int32_t ern_sat16(int32_t v) { ERN_SATURATE(32768, v); }
ERN_INLINE int32_t ern_sat15(int32_t v) { ERN_SATURATE(16384, v); }
ERN_INLINE int32_t ern_sat8(int32_t v) { ERN_SATURATE(128, v); }
#endif

ERN_INLINE int32_t ern_clamp(int32_t v, int32_t bound) { return v < -bound ? -bound : v > bound ? bound : v; }

/* v * 2^n without shifting a negative value left, which C leaves undefined. */
ERN_INLINE int32_t ern_shift_left(int32_t v, int n) { return (int32_t)((uint32_t)v << n); }

/* round_shift of a product, e >= 2: half up for the first bit, then half away from zero. With the sign of the product
 * (-1 or 0; of a product that is 0 either) both roundings are one. */
ERN_INLINE int32_t ern_round_shift(int32_t product, int32_t sign, int e) {
  return (product + (1 << (e - 1)) + 1 + 2 * sign) >> e;
}

/* sat16(acc * multiplier * 2^-shift) for 8 <= shift <= 46 and a multiplier of 15 bits, packed as multiplier << 8 | shift,
 * by 32-bit products. Beyond 2^(shift + 1) the result saturates: what is above may be cut off first. */
ERN_INLINE int32_t ern_requantize_general(int32_t acc, int32_t packed) {
  int32_t multiplier = packed >> 8, shift = packed & 255, high;
  if (shift < 17) {
    acc = ern_shift_left(ern_clamp(acc, 1 << (shift + 1)), 17 - shift);
    shift = 17;
  }
  high = (acc >> 16) * multiplier + (int32_t)(((uint32_t)acc & 0xFFFFu) * (uint32_t)multiplier >> 16);
  return ern_sat16((high + (1 << (shift - 17))) >> (shift - 16));
}

/* An LSTM's cell state, of scale 2^-exponent, as a pre-activation: * 3072 / 2^exponent in two roundings. The multiplier
 * 1 / float32(1 / 3072) is a little less than 3072, so that ties of the first rounding go towards zero. */
ERN_INLINE int32_t ern_cell_to_preactivation(int32_t cell, int exponent) {
  int32_t sign = cell >> 31;
  int left = exponent < 12 ? 12 - exponent : 0, right = exponent > 12 ? exponent - 12 : 0;
  int32_t v = (3 * ern_shift_left(cell, left) + 1 - sign) >> 2;
  return right == 0 ? v : (v + (1 << right >> 1) + sign) >> right;
}

/* The hidden state as the matrix product of w8a8 reads it. */
ERN_INLINE int32_t ern_view8(int32_t h) { return ern_sat8(ern_round_shift(h, h >> 31, 8)); }
