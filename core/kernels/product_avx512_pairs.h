/* product_avx512_pairs.h: rounding and pairing rows of f32 in AVX-512-BF16, for the kernels that eat them. */

static inline __mmask16 first_of(int64_t left) { return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1); }

static void round_row(pn_bf16 *to, const float *from, int64_t n) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i)));
  for (; i < n; i += 16) {
    __mmask16 mask = first_of(n - i);
    _mm256_mask_storeu_epi16(to + i, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + i)));
  }
}

static void pair_rows(pn_pair *to, int64_t ld, const void *const *rows, int64_t at, int64_t n, int64_t n_p) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                         19, 3, 18, 2, 17, 1, 16, 0);
  for (int64_t p = 0; p < n_p; p++, to += ld) {
    const float *a = (const float *)rows[2 * p] + at, *b = (const float *)rows[2 * p + 1] + at;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
      __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(b + i), _mm512_loadu_ps(a + i));
      _mm512_storeu_si512(to + i, _mm512_permutexvar_epi16(order, both));
    }
    if (i == n) continue;
    __mmask16 mask = first_of(n - i);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(mask, b + i), _mm512_maskz_loadu_ps(mask, a + i));
    _mm512_mask_storeu_epi32(to + i, mask, _mm512_permutexvar_epi16(order, both));
  }
}

/* 16 x 16: pairs of rows, quads, then 128-bit lanes twice. */
static inline void transpose_16(pn_pair *to, int64_t to_ld, const pn_pair *from, int64_t from_ld, int64_t rows, int64_t columns) {
  __m512i r[16], s[16];
  __mmask16 in = first_of(columns), out = first_of(rows);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = i < rows ? _mm512_maskz_loadu_epi32(in, from + i * from_ld) : _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]), s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]), r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]), r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    s[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88), s[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    s[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88), s[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0x88), r[i + 8] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(s[i + 4], s[i + 12], 0x88), r[i + 12] = _mm512_shuffle_i32x4(s[i + 4], s[i + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++)
    if (i < columns) _mm512_mask_storeu_epi32(to + i * to_ld, out, r[i]);
}

static void transpose_pairs(pn_pair *to, int64_t to_ld, const pn_pair *from, int64_t from_ld, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += 16)
    for (int64_t c = 0; c < columns; c += 16)
      transpose_16(to + c * to_ld + r, to_ld, from + r * from_ld + c, from_ld, pn_min64(16, rows - r), pn_min64(16, columns - c));
}
