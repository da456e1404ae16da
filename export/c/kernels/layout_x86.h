/* Weights of sixteen rows beside each other, four columns of each: for the vectors of x86-64, AVX-512 with VNNI or AVX2.
 *
 * Four columns of an operand are spread over a register, so that every lane of 32 bits sums up a row of its own. */

typedef struct {
  const int8_t *weights; /* of every block [columns / 4][16][4] */
  const int32_t *rows;   /* of every block: 16 biases, 16 biases less 128 times the row's weights, 16 multipliers */
} ern_stream;

#if defined(ERN_VECTORS)

typedef int32_t __attribute__((may_alias, aligned(1))) ern_word;
typedef int64_t __attribute__((may_alias, aligned(1))) ern_two_words;

#define ERN_LOAD(from) _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define ERN_LOAD_LONG(from) _mm512_loadu_si512((const void *)(from))
#define ERN_FOUR(v) (*(const ern_word *)(const void *)(v))            /* columns of bytes */
#define ERN_FOUR_WIDE(v) (*(const ern_two_words *)(const void *)(v)) /* and of half-words */

#if defined(ERN_VNNI)
typedef __m512i ern_sums;

#if ERN_W8A16
/* Sums of two products in every lane: rows take two of them, and rows 0 .. 7 a register. */
ERN_INLINE ern_sums ern_products(const int8_t *w, const int32_t *rows, const ern_operand *v, int columns) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  __m512i first = _mm512_setzero_si512(), second = first;
  int column;
  for (column = 0; column < columns; column += 4, w += 64) {
    __m512i x = _mm512_set1_epi64(ERN_FOUR_WIDE(v + column));
    first = _mm512_dpwssd_epi32(first, _mm512_cvtepi8_epi16(ERN_LOAD(w)), x);
    second = _mm512_dpwssd_epi32(second, _mm512_cvtepi8_epi16(ERN_LOAD(w + 32)), x);
  }
  return _mm512_add_epi32(ERN_LOAD_LONG(rows), _mm512_add_epi32(_mm512_permutex2var_epi32(first, even, second),
                                                                _mm512_permutex2var_epi32(first, odd, second)));
}
#else
ERN_INLINE ern_sums ern_products(const int8_t *w, const int32_t *rows, const ern_operand *v, int columns) {
  __m512i sum = ERN_LOAD_LONG(rows + 16), other = _mm512_setzero_si512();
  int column;
  for (column = 0; column + 8 <= columns; column += 8, w += 128) {
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(ERN_FOUR(v + column)), ERN_LOAD_LONG(w));
    other = _mm512_dpbusd_epi32(other, _mm512_set1_epi32(ERN_FOUR(v + column + 4)), ERN_LOAD_LONG(w + 64));
  }
  if (column < columns) sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(ERN_FOUR(v + column)), ERN_LOAD_LONG(w));
  return _mm512_add_epi32(sum, other);
}
#endif

/* As ern_requantize: products of 64 bits, of even and of odd lanes. */
ERN_INLINE ern_value ern_requantize16(ern_sums acc, const int32_t *multipliers, int left) {
  const __m512i half = _mm512_set1_epi64(INT64_C(1) << 31);
  __m512i m = ERN_LOAD_LONG(multipliers), even, odd;
  acc = _mm512_sll_epi32(acc, _mm_cvtsi32_si128(left));
  even = _mm512_add_epi64(_mm512_mul_epi32(acc, m), half);
  odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(acc, 32), _mm512_srli_epi64(m, 32)), half);
  return _mm512_cvtsepi32_epi16(_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd));
}

ERN_INLINE void ern_store_sums(int32_t to[16], ern_sums sums) { _mm512_storeu_si512(to, sums); }
#else
typedef struct {
  __m256i low, high; /* rows 0 .. 7, 8 .. 15 */
} ern_sums;

#if ERN_W8A16
/* Sums of two products in every lane: rows take two of them, and four rows a register. */
ERN_INLINE __m256i ern_two_products(__m256i sum, const int8_t *w, __m256i x) {
  __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(wide, x));
}

/* Of eight rows from their halves. */
ERN_INLINE __m256i ern_both_products(const int32_t *bias, __m256i first, __m256i second) {
  __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), 0xD8);
  return _mm256_add_epi32(ERN_LOAD(bias), sums);
}

ERN_INLINE ern_sums ern_products(const int8_t *w, const int32_t *rows, const ern_operand *v, int columns) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  ern_sums sums;
  int column;
  for (column = 0; column < columns; column += 4, w += 64) {
    __m256i x = _mm256_set1_epi64x(ERN_FOUR_WIDE(v + column));
    a = ern_two_products(a, w, x);
    b = ern_two_products(b, w + 16, x);
    c = ern_two_products(c, w + 32, x);
    d = ern_two_products(d, w + 48, x);
  }
  sums.low = ern_both_products(rows, a, b);
  sums.high = ern_both_products(rows + 8, c, d);
  return sums;
}
#else
/* Products of bytes, an unsigned by a signed one: |x| <= 128 by the weight, |weight| <= 127, with the sign of x. Two of
 * them fit 16 bits: 2 * 128 * 127 < 2^15. */
ERN_INLINE __m256i ern_four_products(__m256i sum, const int8_t *w, __m256i x, __m256i magnitude) {
  __m256i two = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(ERN_LOAD(w), x));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(two, ern_all(1)));
}

ERN_INLINE ern_sums ern_products(const int8_t *w, const int32_t *rows, const ern_operand *v, int columns) {
  ern_sums sums;
  int column;
  sums.low = ERN_LOAD(rows);
  sums.high = ERN_LOAD(rows + 8);
  for (column = 0; column < columns; column += 4, w += 64) {
    __m256i x = _mm256_set1_epi32(ERN_FOUR(v + column)), magnitude = _mm256_abs_epi8(x);
    sums.low = ern_four_products(sums.low, w, x, magnitude);
    sums.high = ern_four_products(sums.high, w + 32, x, magnitude);
  }
  return sums;
}
#endif

/* As ern_requantize: products of 64 bits, of even and of odd lanes. */
ERN_INLINE __m256i ern_high_words(__m256i acc, const int32_t *multipliers, int left) {
  const __m256i half = _mm256_set1_epi64x(INT64_C(1) << 31);
  __m256i m = ERN_LOAD(multipliers), even, odd;
  acc = _mm256_sll_epi32(acc, _mm_cvtsi32_si128(left));
  even = _mm256_add_epi64(_mm256_mul_epi32(acc, m), half);
  odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), _mm256_srli_epi64(m, 32)), half);
  return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

ERN_INLINE ern_value ern_requantize16(ern_sums acc, const int32_t *multipliers, int left) {
  __m256i low = ern_high_words(acc.low, multipliers, left), high = ern_high_words(acc.high, multipliers + 8, left);
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
}

ERN_INLINE void ern_store_sums(int32_t to[16], ern_sums sums) {
  _mm256_storeu_si256((__m256i *)(void *)to, sums.low);
  _mm256_storeu_si256((__m256i *)(void *)(to + 8), sums.high);
}
#endif

/* Multipliers of any size, one after the other. */
ERN_APART ern_value ern_requantize16_general(const int32_t sums[16], const int32_t *multipliers) {
  int16_t out[16];
  int n;
  for (n = 0; n < 16; n++) out[n] = (int16_t)ern_requantize_general(sums[n], multipliers[n]);
  return ern_load(out);
}

/* The next block of sixteen rows: sat16((bias + weights . v) * multiplier). columns: a multiple of 4. */
ERN_INLINE ern_value ern_rows(ern_stream *stream, const ern_operand *v, int columns, int left) {
  const int32_t *rows = stream->rows;
  ern_sums sums = ern_products(stream->weights, rows, v, columns);
  stream->weights += 16 * columns;
  stream->rows += 48;
  if (left == ERN_GENERAL) {
    int32_t each[16];
    ern_store_sums(each, sums);
    return ern_requantize16_general(each, rows + 32);
  }
  return ern_requantize16(sums, rows + 32, left);
}

ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[16]) {
  int16_t narrow[16];
  int n;
  ern_store(narrow, ern_rows(stream, v, columns, left));
  for (n = 0; n < 16; n++) out[n] = narrow[n];
}

/* The view of sixteen values, and of a whole hidden state. */
ERN_INLINE void ern_store_view(ern_operand *view, ern_value v) {
#if ERN_W8A16
  ern_store(view, v);
#else
  __m256i away = _mm256_or_si256(_mm256_srai_epi16(v, 15), ern_all(1));
  __m256i bytes = ern_shift_right(_mm256_adds_epi16(v, away), 8);
  __m128i packed = _mm_packs_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storeu_si128((__m128i *)(void *)view, _mm_xor_si128(packed, _mm_set1_epi8(ERN_FLIPPED)));
#endif
}

ERN_INLINE void ern_view_of(const int16_t *h, int units, ern_operand *view) {
  int u;
  for (; units >= 16; units -= 16, h += 16, view += 16) ern_store_view(view, ern_load(h));
  for (u = 0; u < units; u++) view[u] = ern_view(h[u]);
}

#else

/* Sixteen rows of a dense map, requantized: out[row] = sat16((bias + weights . v) * multiplier). */
ERN_INLINE void ern_dense(ern_stream *stream, const ern_operand *v, int columns, int left, int32_t out[16]) {
  const int8_t *w = stream->weights;
  const int32_t *rows = stream->rows;
  int row, start, n;
  for (row = 0; row < 16; row++) out[row] = rows[row];
  for (start = 0; start < columns; start += 4) {
    for (row = 0; row < 16; row++, w += 4) {
      for (n = 0; n < 4; n++) out[row] += w[n] * v[start + n];
    }
  }
  for (row = 0; row < 16; row++) out[row] = ern_requantize(out[row], rows[32 + row], left);
  stream->weights = w;
  stream->rows = rows + 48;
}
#endif
