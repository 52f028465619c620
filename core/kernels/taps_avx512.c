/* taps_avx512.c: taps.h for AVX-512: 64 channels at a time, then 16 under a mask. */
#include "kernels/taps.h"
#ifndef PN_F64_BUILD
#include <immintrin.h>
#include <math.h>

static inline __mmask16 mask_of(int64_t n) { return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1); }

static inline __mmask16 beats(__m512 value, __m512 best) {
  return _kor_mask16(_mm512_cmp_ps_mask(value, best, _CMP_GT_OQ), _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q));
}

/* max returns its second operand where either is NaN: NaN is seen to apart. */
static inline __m512 larger(__m512 value, __m512 best, __mmask16 *nan) {
  *nan = _kor_mask16(*nan, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q));
  return _mm512_max_ps(value, best);
}

static void largest_alone(real *y, const real *x, const int64_t *offset, int64_t n, int64_t c) {
  const __m512 lowest = _mm512_set1_ps(-INFINITY), nan = _mm512_set1_ps(NAN);
  int64_t i = 0;
  for (; i + 64 <= c; i += 64) {
    __m512 b0 = lowest, b1 = lowest, b2 = lowest, b3 = lowest;
    __mmask16 u0 = 0, u1 = 0, u2 = 0, u3 = 0;
    for (int64_t k = 0; k < n; k++) {
      const real *from = x + offset[k] + i;
      b0 = larger(_mm512_loadu_ps(from), b0, &u0), b1 = larger(_mm512_loadu_ps(from + 16), b1, &u1);
      b2 = larger(_mm512_loadu_ps(from + 32), b2, &u2), b3 = larger(_mm512_loadu_ps(from + 48), b3, &u3);
    }
    _mm512_storeu_ps(y + i, _mm512_mask_mov_ps(b0, u0, nan)), _mm512_storeu_ps(y + i + 16, _mm512_mask_mov_ps(b1, u1, nan));
    _mm512_storeu_ps(y + i + 32, _mm512_mask_mov_ps(b2, u2, nan)), _mm512_storeu_ps(y + i + 48, _mm512_mask_mov_ps(b3, u3, nan));
  }
  for (; i < c; i += 16) {
    __mmask16 live = mask_of(c - i), u = 0;
    __m512 best = lowest;
    for (int64_t k = 0; k < n; k++) best = larger(_mm512_maskz_loadu_ps(live, x + offset[k] + i), best, &u);
    _mm512_mask_storeu_ps(y + i, live, _mm512_mask_mov_ps(best, u, nan));
  }
}

static void largest(real *y, uint8_t *index, const real *x, const int64_t *offset, const uint8_t *number, int64_t n, int64_t c) {
  if (!index) {
    largest_alone(y, x, offset, n, c);
    return;
  }
  int64_t i = 0;
  for (; i + 64 <= c; i += 64) {
    const real *from = x + offset[0] + i;
    __m512 b0 = _mm512_loadu_ps(from), b1 = _mm512_loadu_ps(from + 16), b2 = _mm512_loadu_ps(from + 32),
           b3 = _mm512_loadu_ps(from + 48);
    __m512i w0 = _mm512_set1_epi32(number[0]), w1 = w0, w2 = w0, w3 = w0;
    for (int64_t k = 1; k < n; k++) {
      from = x + offset[k] + i;
      __m512i w = _mm512_set1_epi32(number[k]);
      __m512 v0 = _mm512_loadu_ps(from), v1 = _mm512_loadu_ps(from + 16), v2 = _mm512_loadu_ps(from + 32),
             v3 = _mm512_loadu_ps(from + 48);
      __mmask16 m0 = beats(v0, b0), m1 = beats(v1, b1), m2 = beats(v2, b2), m3 = beats(v3, b3);
      b0 = _mm512_mask_mov_ps(b0, m0, v0), w0 = _mm512_mask_mov_epi32(w0, m0, w);
      b1 = _mm512_mask_mov_ps(b1, m1, v1), w1 = _mm512_mask_mov_epi32(w1, m1, w);
      b2 = _mm512_mask_mov_ps(b2, m2, v2), w2 = _mm512_mask_mov_epi32(w2, m2, w);
      b3 = _mm512_mask_mov_ps(b3, m3, v3), w3 = _mm512_mask_mov_epi32(w3, m3, w);
    }
    _mm512_storeu_ps(y + i, b0), _mm512_storeu_ps(y + i + 16, b1), _mm512_storeu_ps(y + i + 32, b2),
        _mm512_storeu_ps(y + i + 48, b3);
    _mm_storeu_si128((__m128i *)(void *)(index + i), _mm512_cvtepi32_epi8(w0));
    _mm_storeu_si128((__m128i *)(void *)(index + i + 16), _mm512_cvtepi32_epi8(w1));
    _mm_storeu_si128((__m128i *)(void *)(index + i + 32), _mm512_cvtepi32_epi8(w2));
    _mm_storeu_si128((__m128i *)(void *)(index + i + 48), _mm512_cvtepi32_epi8(w3));
  }
  for (; i < c; i += 16) {
    __mmask16 live = mask_of(c - i);
    __m512 best = _mm512_maskz_loadu_ps(live, x + offset[0] + i);
    __m512i winner = _mm512_set1_epi32(number[0]);
    for (int64_t k = 1; k < n; k++) {
      __m512 value = _mm512_maskz_loadu_ps(live, x + offset[k] + i);
      __mmask16 m = beats(value, best);
      best = _mm512_mask_mov_ps(best, m, value);
      winner = _mm512_mask_mov_epi32(winner, m, _mm512_set1_epi32(number[k]));
    }
    _mm512_mask_storeu_ps(y + i, live, best);
    _mm512_mask_cvtepi32_storeu_epi8(index + i, live, winner);
  }
}

static void routed(real *dx, bool add, const real *dy, const int64_t *dy_offset, const uint8_t *index, const int64_t *index_offset,
                   const uint8_t *number, int64_t n, int64_t c) {
  int64_t i = 0;
  for (; i + 64 <= c; i += 64) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    if (add)
      s0 = _mm512_loadu_ps(dx + i), s1 = _mm512_loadu_ps(dx + i + 16), s2 = _mm512_loadu_ps(dx + i + 32),
      s3 = _mm512_loadu_ps(dx + i + 48);
    for (int64_t k = 0; k < n; k++) {
      const real *from = dy + dy_offset[k] + i;
      __mmask64 m = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(index + index_offset[k] + i), _mm512_set1_epi8((char)number[k]));
      s0 = _mm512_add_ps(s0, _mm512_maskz_loadu_ps((__mmask16)m, from));
      s1 = _mm512_add_ps(s1, _mm512_maskz_loadu_ps((__mmask16)(m >> 16), from + 16));
      s2 = _mm512_add_ps(s2, _mm512_maskz_loadu_ps((__mmask16)(m >> 32), from + 32));
      s3 = _mm512_add_ps(s3, _mm512_maskz_loadu_ps((__mmask16)(m >> 48), from + 48));
    }
    _mm512_storeu_ps(dx + i, s0), _mm512_storeu_ps(dx + i + 16, s1), _mm512_storeu_ps(dx + i + 32, s2),
        _mm512_storeu_ps(dx + i + 48, s3);
  }
  for (; i < c; i += 16) {
    __mmask16 live = mask_of(c - i);
    __m512 sum = add ? _mm512_maskz_loadu_ps(live, dx + i) : _mm512_setzero_ps();
    for (int64_t k = 0; k < n; k++) {
      __m128i at = _mm_maskz_loadu_epi8(live, index + index_offset[k] + i);
      __mmask16 m = _mm_mask_cmpeq_epi8_mask(live, at, _mm_set1_epi8((char)number[k]));
      sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, dy + dy_offset[k] + i));
    }
    _mm512_mask_storeu_ps(dx + i, live, sum);
  }
}

static void weighted(real *y, bool add, const real *x, const int64_t *offset, const real *weight, int64_t n, int64_t c) {
  if (c == 1) { /* single scores: no vector to fill */
    real sum = add ? y[0] : 0;
    for (int64_t k = 0; k < n; k++) sum += weight[k] * x[offset[k]];
    y[0] = sum;
    return;
  }
  int64_t i = 0;
  for (; i + 64 <= c; i += 64) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    if (add)
      s0 = _mm512_loadu_ps(y + i), s1 = _mm512_loadu_ps(y + i + 16), s2 = _mm512_loadu_ps(y + i + 32),
      s3 = _mm512_loadu_ps(y + i + 48);
    for (int64_t k = 0; k < n; k++) {
      const real *from = x + offset[k] + i;
      const __m512 w = _mm512_set1_ps(weight[k]);
      s0 = _mm512_fmadd_ps(w, _mm512_loadu_ps(from), s0);
      s1 = _mm512_fmadd_ps(w, _mm512_loadu_ps(from + 16), s1);
      s2 = _mm512_fmadd_ps(w, _mm512_loadu_ps(from + 32), s2);
      s3 = _mm512_fmadd_ps(w, _mm512_loadu_ps(from + 48), s3);
    }
    _mm512_storeu_ps(y + i, s0), _mm512_storeu_ps(y + i + 16, s1), _mm512_storeu_ps(y + i + 32, s2),
        _mm512_storeu_ps(y + i + 48, s3);
  }
  for (; i < c; i += 16) {
    __mmask16 live = mask_of(c - i);
    __m512 sum = add ? _mm512_maskz_loadu_ps(live, y + i) : _mm512_setzero_ps();
    for (int64_t k = 0; k < n; k++)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(weight[k]), _mm512_maskz_loadu_ps(live, x + offset[k] + i), sum);
    _mm512_mask_storeu_ps(y + i, live, sum);
  }
}

static void between(real *y, const real *x, const int32_t *low, const real *share, int64_t n) {
  const __m512 one = _mm512_set1_ps(1), none = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    __mmask16 live = mask_of(n - i);
    __m512i at = _mm512_maskz_loadu_epi32(live, low + i);
    __m512 a = _mm512_mask_i32gather_ps(none, live, at, x, 4), b = _mm512_mask_i32gather_ps(none, live, at, x + 1, 4);
    __m512 w = _mm512_maskz_loadu_ps(live, share + i);
    __m512 mix = _mm512_fmadd_ps(w, b, _mm512_mul_ps(_mm512_sub_ps(one, w), a));
    mix = _mm512_mask_mov_ps(mix, _mm512_cmp_ps_mask(w, none, _CMP_EQ_OQ), a);
    _mm512_mask_storeu_ps(y + i, live, _mm512_mask_mov_ps(mix, _mm512_cmp_ps_mask(w, one, _CMP_EQ_OQ), b));
  }
}

const pn_tap_kernels pn_taps_avx512 = { largest, routed, weighted, between };
#endif
