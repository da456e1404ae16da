/* sigmoid and tanh from a table of one side, 516 bytes: sigmoid(i / 24) in Q0.16 for i <= 255, and the last once more.
 * Sixteen at once in the vectors of AVX2: int16 lanes, whose sums saturate. */

#if defined(__GNUC__) && defined(__AVX2__)
#define ERN_VECTORS
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define ERN_VNNI
#endif
#include <immintrin.h>

#define ERN_UNITS 16
#define ERN_VALUES 1

typedef __m256i ern_value;
typedef __m256i ern_gate;

ERN_INLINE ern_value ern_load(const int16_t *from) { return _mm256_loadu_si256((const __m256i *)(const void *)from); }
ERN_INLINE void ern_store(int16_t *to, ern_value v) { _mm256_storeu_si256((__m256i *)(void *)to, v); }
ERN_INLINE ern_value ern_add(ern_value a, ern_value b) { return _mm256_adds_epi16(a, b); }
ERN_INLINE ern_value ern_subtract(ern_value a, ern_value b) { return _mm256_subs_epi16(a, b); }
ERN_INLINE ern_value ern_saturated(ern_value v) { return v; }
ERN_INLINE __m256i ern_all(int v) { return _mm256_set1_epi16((int16_t)v); }

/* |v|, of -32768 32767 */
ERN_INLINE __m256i ern_magnitude(__m256i v) { return _mm256_max_epi16(v, _mm256_subs_epi16(ern_all(0), v)); }

/* The entries of these intervals, 0 .. 255, and how much is added on the way to the next ones. */
#if defined(ERN_VNNI)
ERN_INLINE __m256i ern_entries(__m256i interval, __m256i *slope) {
  const __m512i *table = (const __m512i *)(const void *)ern_values;
  __m512i both = _mm512_castsi256_si512(interval), eighth[4], found;
  __mmask32 upper, uppermost;
  int n;
  both = _mm512_inserti64x4(both, _mm256_min_epi16(_mm256_add_epi16(interval, ern_all(1)), ern_all(255)), 1);
  for (n = 0; n < 4; n++) {
    eighth[n] = _mm512_permutex2var_epi16(_mm512_loadu_si512(table + 2 * n), both, _mm512_loadu_si512(table + 2 * n + 1));
  }
  upper = _mm512_test_epi16_mask(both, _mm512_set1_epi16(64));
  uppermost = _mm512_test_epi16_mask(both, _mm512_set1_epi16(128));
  found = _mm512_mask_blend_epi16(uppermost, _mm512_mask_blend_epi16(upper, eighth[0], eighth[1]),
                                  _mm512_mask_blend_epi16(upper, eighth[2], eighth[3]));
  interval = _mm512_castsi512_si256(found);
  *slope = _mm256_sub_epi16(_mm512_extracti64x4_epi64(found, 1), interval);
  return interval;
}
#else
ERN_INLINE __m256i ern_entries(__m256i interval, __m256i *slope) {
  uint16_t at[16], entry[16], next[16];
  __m256i value;
  int n;
  ern_store((int16_t *)(void *)at, interval);
  for (n = 0; n < 16; n++) {
    entry[n] = ern_values[at[n]];
    next[n] = ern_values[at[n] + 1];
  }
  value = ern_load((const int16_t *)(const void *)entry);
  *slope = _mm256_sub_epi16(ern_load((const int16_t *)(const void *)next), value);
  return value;
}
#endif

/* The mean of an entry and of what is added to it is rounded up, as it must be; from interval 255 on it is 32767. */
ERN_INLINE ern_gate ern_sigmoid(ern_value p) {
  __m256i magnitude = ern_magnitude(p), slope, value = ern_entries(_mm256_srli_epi16(magnitude, 7), &slope);
  __m256i negative = _mm256_srai_epi16(p, 15);
  value = _mm256_avg_epu16(value, _mm256_mulhi_epu16(slope, _mm256_slli_epi16(magnitude, 9)));
  value = _mm256_min_epu16(value, ern_all(32767));
  return _mm256_sub_epi16(_mm256_xor_si256(value, negative), _mm256_and_si256(negative, ern_all(32767)));
}

/* Beyond 15 bits it is 1. */
ERN_INLINE ern_value ern_tanh(ern_value p) {
  __m256i magnitude = _mm256_min_epi16(ern_magnitude(p), ern_all(16319)), slope;
  __m256i value = ern_entries(_mm256_srli_epi16(magnitude, 6), &slope);
  __m256i place = _mm256_and_si256(_mm256_slli_epi16(magnitude, 9), ern_all(32767));
  value = _mm256_add_epi16(_mm256_add_epi16(value, ern_all(-32768)), _mm256_mulhrs_epi16(slope, place));
  return _mm256_sign_epi16(value, _mm256_or_si256(p, ern_all(1)));
}

/* sat16(round_shift(gate * v, e)): a product is moved away from zero by 1, so that half up rounds it that way. For 15 the
 * rounding product of 16 bits is nearly that: it does not see the 1, which matters where the lower 15 bits are one short
 * of a half, or of a negative product a half. */
ERN_INLINE ern_value ern_scale(ern_gate gate, ern_value v, int e) {
  __m256i sign = _mm256_srai_epi16(v, 15), low = _mm256_mullo_epi16(gate, v);
  __m256i away = _mm256_or_si256(sign, ern_all(1)), high, add, first, second;
  if (e == 15) {
    __m256i tie = _mm256_cmpeq_epi16(_mm256_and_si256(low, ern_all(32767)), _mm256_sub_epi16(ern_all(16383), sign));
    return _mm256_add_epi16(_mm256_mulhrs_epi16(gate, v), _mm256_and_si256(tie, away));
  }
  high = _mm256_mulhi_epi16(gate, v);
  add = _mm256_set1_epi32(1 << (e - 1));
  first = _mm256_unpacklo_epi16(low, high);
  second = _mm256_unpackhi_epi16(low, high);
  first = _mm256_add_epi32(first, _mm256_add_epi32(add, _mm256_srai_epi32(_mm256_unpacklo_epi16(away, away), 16)));
  second = _mm256_add_epi32(second, _mm256_add_epi32(add, _mm256_srai_epi32(_mm256_unpackhi_epi16(away, away), 16)));
  return _mm256_packs_epi32(_mm256_sra_epi32(first, _mm_cvtsi32_si128(e)), _mm256_sra_epi32(second, _mm_cvtsi32_si128(e)));
}

/* v * 2^-n, half up */
ERN_INLINE __m256i ern_shift_right(__m256i v, int n) {
  __m256i last = _mm256_sra_epi16(v, _mm_cvtsi32_si128(n - 1));
  return _mm256_add_epi16(_mm256_srai_epi16(last, 1), _mm256_and_si256(last, ern_all(1)));
}

/* As ern_cell_to_preactivation: 3 / 4 is 1 less a quarter. Where a shift to the left saturates, tanh is 1 long since. */
ERN_INLINE ern_value ern_preactivation(ern_value cell, int exponent) {
  __m256i sign = _mm256_srai_epi16(cell, 15), v;
  int n;
  for (n = exponent; n < 12; n++) cell = _mm256_adds_epi16(cell, cell);
  v = _mm256_sub_epi16(cell, ern_shift_right(_mm256_adds_epi16(cell, sign), 2));
  return exponent > 12 ? ern_shift_right(_mm256_add_epi16(v, sign), exponent - 12) : v;
}

#else

#define ERN_UNITS 16
#define ERN_VALUES 16

typedef int32_t ern_gate;

/* sigmoid(sat16(p)) */
ERN_INLINE ern_gate ern_sigmoid(int32_t p) {
  int32_t saturated = ern_sat16(p), sign = saturated >> 31, magnitude = ern_clamp((saturated ^ sign) - sign, 32767);
  const uint16_t *entry = ern_values + (magnitude >> 7);
  int32_t value = (entry[0] * 128 + (entry[1] - entry[0]) * (magnitude & 127) + 128) >> 8;
  return (ern_clamp(value, 32767) ^ sign) + (sign & 32769);
}

/* tanh(sat16(p)) */
ERN_INLINE int32_t ern_tanh(int32_t p) {
  int32_t sign = p >> 31, magnitude = ern_clamp((p ^ sign) - sign, 16319); /* beyond it is 1 */
  const uint16_t *entry = ern_values + (magnitude >> 6);
  int32_t value = entry[0] * 64 + (entry[1] - entry[0]) * (magnitude & 63);
  return (((value + 32) >> 6) - 32768) * (2 * sign + 1);
}

/* round_shift(gate * v, e) */
ERN_INLINE int32_t ern_scale(ern_gate gate, int32_t v, int e) { return ern_round_shift(gate * v, v >> 31, e); }
#endif
