/* product_avx2.c: the micro-kernels of product.h in AVX2 and FMA: 12 accumulators, 2 weights and 1 pixel of 16 registers. */
#include "product.h"

#if defined(__AVX2__) && defined(__FMA__) && !defined(PN_F64_BUILD)
#include <immintrin.h>

typedef __m256 V;
enum { VL = 8 };
static inline V v_zero(void) { return _mm256_setzero_ps(); }
static inline V v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, V v) { _mm256_storeu_ps(p, v); }
static inline V v_set1(float x) { return _mm256_set1_ps(x); }
static inline V v_add(V a, V b) { return _mm256_add_ps(a, b); }
static inline V v_relu(V v) { return _mm256_max_ps(_mm256_setzero_ps(), v); } /* this order keeps NaN */
static inline V v_fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
static inline __m256i first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline V v_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
static inline void v_store_n(float *p, V v, int64_t n) { _mm256_maskstore_ps(p, first(n), v); }

static inline float v_sum(V v) {
  __m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

#include "product_tiles.h"
DOT(8)
TILE(12, 1)
TILE(6, 2)
OUTER(6, 1)
OUTER(6, 2)

const pn_product_kernels pn_product_avx2 = {
  .vl = VL,
  .most_nv = 2,
  .mr = {8,      12,        6        },
  .tile = { dot_8, tile_12x1, tile_6x2 },
  .outer_mi = 6,
  .outer_most_nv = 2,
  .outer = { NULL,  outer_6x1, outer_6x2},
};
#else
const pn_product_kernels pn_product_avx2;
#endif
