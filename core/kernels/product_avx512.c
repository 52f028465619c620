/* product_avx512.c: the micro-kernels of product.h in AVX-512: 24 accumulators and at most 4 weights of 32 registers. */
#include "product.h"

#if defined(__AVX512F__) && !defined(PN_F64_BUILD)
#include <immintrin.h>

typedef __m512 V;
enum { VL = 16 };
static inline V v_zero(void) { return _mm512_setzero_ps(); }
static inline V v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, V v) { _mm512_storeu_ps(p, v); }
static inline V v_set1(float x) { return _mm512_set1_ps(x); }
static inline V v_add(V a, V b) { return _mm512_add_ps(a, b); }
static inline V v_relu(V v) { return _mm512_max_ps(_mm512_setzero_ps(), v); } /* this order keeps NaN */
static inline V v_fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
static inline __mmask16 first(int64_t n) { return (__mmask16)((1u << n) - 1); }
static inline V v_load_n(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
static inline void v_store_n(float *p, V v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }

static inline float v_sum(V v) { return _mm512_reduce_add_ps(v); }

#include "product_tiles.h"
DOT(8)
TILE(12, 1)
TILE(12, 2)
TILE(8, 3)
TILE(6, 4)
OUTER(8, 1)
OUTER(8, 2)
OUTER(8, 3)

const pn_product_kernels pn_product_avx512 = {
  .vl = VL,
  .most_nv = 4,
  .mr = {8,         12, 12,           8,             6 },
  .tile = { dot_8,        tile_12x1,     tile_12x2, tile_8x3, tile_6x4 },
  .outer_mi = 8,
  .outer_most_nv = 3,
  .outer = { NULL, outer_8x1,  outer_8x2,          outer_8x3             },
};
#else
const pn_product_kernels pn_product_avx512;
#endif
