/* product_avx512_bf16.c: the micro-kernels of product_bf16.h in AVX-512-BF16: 24 accumulators, as in product_avx512.c. */
#include "product_bf16.h"

#if defined(__AVX512BF16__) && !defined(PN_F64_BUILD)
#include <immintrin.h>
#include "product_avx512_pairs.h"

enum { VL = PN_BF16_VL };

static inline __attribute__((always_inline)) void tile(float *const *c, const void *const *a, int64_t n_taps, int64_t k,
                                                       const pn_pair *w, const float *bias, int64_t n, bool add, bool relu,
                                                       const int mr, const int nv) {
  __m512 acc[12][4];
#pragma GCC unroll 16
  for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) acc[m][v] = bias ? _mm512_loadu_ps(bias + v * VL) : _mm512_setzero_ps();
  for (int64_t tap = 0; tap < n_taps; tap++, a += mr) {
    const char *row[12];
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++) row[m] = a[m];
    for (int64_t i = 0; i < k; i += 2, w += nv * VL) {
      __m512bh b[4];
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) b[v] = (__m512bh)_mm512_loadu_si512(w + v * VL);
#pragma GCC unroll 16
      for (int m = 0; m < mr; m++) {
        int pair;
        memcpy(&pair, row[m] + 2 * i, sizeof pair);
        __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) acc[m][v] = _mm512_dpbf16_ps(acc[m][v], x, b[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) {
      int64_t left = n - v * VL;
      if (left <= 0) continue;
      __mmask16 mask = left >= VL ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
      float *to = c[m] + v * VL;
      __m512 sum = add ? _mm512_add_ps(acc[m][v], _mm512_maskz_loadu_ps(mask, to)) : acc[m][v];
      _mm512_mask_storeu_ps(to, mask, relu ? _mm512_max_ps(_mm512_setzero_ps(), sum) : sum); /* this order keeps NaN */
    }
}

static inline __attribute__((always_inline)) void outer(float *g, int64_t ldg, const pn_pair *a, int64_t lda, const pn_pair *b,
                                                        int64_t ldb, int64_t n_p, const int mi, const int nv) {
  __m512 acc[8][3];
#pragma GCC unroll 16
  for (int i = 0; i < mi; i++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) acc[i][v] = _mm512_setzero_ps();
  for (int64_t p = 0; p < n_p; p++, a += lda, b += ldb) {
    __m512bh y[3];
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) y[v] = (__m512bh)_mm512_loadu_si512(b + v * VL);
#pragma GCC unroll 16
    for (int i = 0; i < mi; i++) {
      __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) acc[i][v] = _mm512_dpbf16_ps(acc[i][v], x, y[v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < mi; i++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) {
      float *to = g + i * ldg + v * VL;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), acc[i][v]));
    }
}

#define TILE(rows, nv)                                                                                                             \
  static void tile_##rows##x##nv(float *const *c, const void *const *a, int64_t n_taps, int64_t k, const pn_pair *w,               \
                                 const float *bias, int64_t n, bool add, bool relu) {                                              \
    tile(c, a, n_taps, k, w, bias, n, add, relu, rows, nv);                                                                        \
  }
#define OUTER(rows, nv)                                                                                                            \
  static void outer_##rows##x##nv(float *g, int64_t ldg, const pn_pair *a, int64_t lda, const pn_pair *b, int64_t ldb,             \
                                  int64_t n_p) {                                                                                   \
    outer(g, ldg, a, lda, b, ldb, n_p, rows, nv);                                                                                  \
  }
TILE(12, 1)
TILE(12, 2)
TILE(8, 3)
TILE(6, 4)
OUTER(8, 1)
OUTER(8, 2)
OUTER(8, 3)

const pn_bf16_kernels pn_product_avx512_bf16 = {
  .k_step = 2,
  .most_nv = 4,
  .mr = {0,         12, 12,          8,              6 },
  .tile = { NULL,        tile_12x1,      tile_12x2, tile_8x3, tile_6x4 },
  .outer_mi = 8,
  .outer_most_nv = 3,
  .outer = { NULL, outer_8x1,  outer_8x2,         outer_8x3             },
  .round = round_row,
  .pairs = pair_rows,
  .transpose = transpose_pairs,
};
#else
const pn_bf16_kernels pn_product_avx512_bf16;
#endif
