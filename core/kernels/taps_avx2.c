/* taps_avx2.c: taps.h for AVX2: 16, then 8 channels at a time; the plain loops do the rest. */
#include "kernels/taps.h"
#ifndef PN_F64_BUILD
#include <immintrin.h>

static inline __m256 beats(__m256 value, __m256 best) {
  return _mm256_or_ps(_mm256_cmp_ps(value, best, _CMP_GT_OQ), _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
}

static inline __m256i choose(__m256i a, __m256i b, __m256 mask) {
  return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), mask));
}

static inline void store_bytes(uint8_t *to, __m256i w) { /* the low byte of eight i32 */
  const __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1,
                                        -1, -1, -1, -1, -1, -1, -1, -1);
  __m256i bytes = _mm256_shuffle_epi8(w, pick);
  __m128i eight = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64((__m128i *)(void *)to, eight);
}

static void largest(real *y, uint8_t *index, const real *x, const int64_t *offset, const uint8_t *number, int64_t n, int64_t c) {
  int64_t i = 0;
  for (; i + 16 <= c; i += 16) {
    const real *from = x + offset[0] + i;
    __m256 b0 = _mm256_loadu_ps(from), b1 = _mm256_loadu_ps(from + 8);
    __m256i w0 = _mm256_set1_epi32(number[0]), w1 = w0;
    for (int64_t k = 1; k < n; k++) {
      from = x + offset[k] + i;
      __m256i w = _mm256_set1_epi32(number[k]);
      __m256 v0 = _mm256_loadu_ps(from), v1 = _mm256_loadu_ps(from + 8);
      __m256 m0 = beats(v0, b0), m1 = beats(v1, b1);
      b0 = _mm256_blendv_ps(b0, v0, m0), w0 = choose(w0, w, m0);
      b1 = _mm256_blendv_ps(b1, v1, m1), w1 = choose(w1, w, m1);
    }
    _mm256_storeu_ps(y + i, b0), _mm256_storeu_ps(y + i + 8, b1);
    if (index) store_bytes(index + i, w0), store_bytes(index + i + 8, w1);
  }
  for (; i + 8 <= c; i += 8) {
    __m256 best = _mm256_loadu_ps(x + offset[0] + i);
    __m256i winner = _mm256_set1_epi32(number[0]);
    for (int64_t k = 1; k < n; k++) {
      __m256 value = _mm256_loadu_ps(x + offset[k] + i), m = beats(value, best);
      best = _mm256_blendv_ps(best, value, m), winner = choose(winner, _mm256_set1_epi32(number[k]), m);
    }
    _mm256_storeu_ps(y + i, best);
    if (index) store_bytes(index + i, winner);
  }
  if (i < c) pn_taps_plain.largest(y + i, index ? index + i : NULL, x + i, offset, number, n, c - i);
}

static void routed(real *dx, bool add, const real *dy, const int64_t *dy_offset, const uint8_t *index, const int64_t *index_offset,
                   const uint8_t *number, int64_t n, int64_t c) {
  int64_t i = 0;
  for (; i + 8 <= c; i += 8) {
    __m256 sum = add ? _mm256_loadu_ps(dx + i) : _mm256_setzero_ps();
    for (int64_t k = 0; k < n; k++) {
      __m128i same = _mm_cmpeq_epi8(_mm_loadl_epi64((const __m128i *)(const void *)(index + index_offset[k] + i)),
                                    _mm_set1_epi8((char)number[k]));
      __m256 m = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(same));
      sum = _mm256_add_ps(sum, _mm256_and_ps(m, _mm256_loadu_ps(dy + dy_offset[k] + i)));
    }
    _mm256_storeu_ps(dx + i, sum);
  }
  if (i < c) pn_taps_plain.routed(dx + i, add, dy + i, dy_offset, index + i, index_offset, number, n, c - i);
}

static void weighted(real *y, bool add, const real *x, const int64_t *offset, const real *weight, int64_t n, int64_t c) {
  int64_t i = 0;
  for (; i + 8 <= c; i += 8) {
    __m256 sum = add ? _mm256_loadu_ps(y + i) : _mm256_setzero_ps();
    for (int64_t k = 0; k < n; k++) sum = _mm256_fmadd_ps(_mm256_set1_ps(weight[k]), _mm256_loadu_ps(x + offset[k] + i), sum);
    _mm256_storeu_ps(y + i, sum);
  }
  if (i < c) pn_taps_plain.weighted(y + i, add, x + i, offset, weight, n, c - i);
}

static void between(real *y, const real *x, const int32_t *low, const real *share, int64_t n) {
  const __m256 one = _mm256_set1_ps(1), none = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)(low + i));
    __m256 a = _mm256_i32gather_ps(x, at, 4), b = _mm256_i32gather_ps(x + 1, at, 4), w = _mm256_loadu_ps(share + i);
    __m256 mix = _mm256_add_ps(_mm256_mul_ps(_mm256_sub_ps(one, w), a), _mm256_mul_ps(w, b));
    mix = _mm256_blendv_ps(mix, a, _mm256_cmp_ps(w, none, _CMP_EQ_OQ));
    _mm256_storeu_ps(y + i, _mm256_blendv_ps(mix, b, _mm256_cmp_ps(w, one, _CMP_EQ_OQ)));
  }
  pn_taps_plain.between(y + i, x, low + i, share + i, n - i);
}

const pn_tap_kernels pn_taps_avx2 = { largest, routed, weighted, between };
#endif
