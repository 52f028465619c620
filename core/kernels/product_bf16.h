/* product_bf16.h: the products of product.h on bf16: pairs of neighbouring k are multiplied at once and added to f32.
**
** Pixels are rows of bf16, k rounded up to `k_step` with zeros. Weights are packed in pairs: n_taps x k/2 x (NV*VL) x 2.
** One table a CPU feature; the plain definition is pn_convolve_plain on rounded inputs (convolve_bf16.c). */
#ifndef PENUMBRA_PRODUCT_BF16_H
#define PENUMBRA_PRODUCT_BF16_H
#include "../bf16.h"
#include "../cpu.h"

enum { PN_BF16_VL = 16, PN_BF16_MOST_MR = 32, PN_BF16_MOST_NV = 4, PN_BF16_STEP = 32 };

/* Two bf16, the first in the lower half. */
typedef uint32_t pn_pair;

/* c[m][0..n-1] = start + sum, as pn_tile_fn; k a multiple of k_step. */
typedef void pn_bf16_tile_fn(float *const *c, const void *const *a, int64_t n_taps, int64_t k, const pn_pair *w, const float *bias,
                             int64_t n, bool add, bool relu);

/* g[i][0..NV*VL-1] += sum over pairs p of a[p][i] . b[p][0..NV*VL-1], i < outer_mi; g has row stride ldg, b ldb, a lda.
** Where the table is `transposed`, a lies as a[i][p] and n_p is a multiple of 16. */
typedef void pn_bf16_outer_fn(float *g, int64_t ldg, const pn_pair *a, int64_t lda, const pn_pair *b, int64_t ldb, int64_t n_p);

typedef struct pn_bf16_kernels {
  int k_step, most_nv, mr[PN_BF16_MOST_NV + 1];
  bool even; /* tile reads pixels fastest where they lie at one distance from each other */
  pn_bf16_tile_fn *tile[PN_BF16_MOST_NV + 1];
  int outer_mi, outer_most_nv;
  bool transposed;
  pn_bf16_outer_fn *outer[PN_BF16_MOST_NV + 1];
  void (*begin)(void), (*end)(void); /* around a thread's use of tile and outer; NULL for nothing to do */
  /* what feeds them */
  void (*round)(pn_bf16 *to, const float *from, int64_t n);
  /* to[p][i] = (rows[2p][i], rows[2p + 1][i]), i < n, p < n_p; rows of to are ld apart, rows[] point at floats, `at` beyond */
  void (*pairs)(pn_pair *to, int64_t ld, const void *const *rows, int64_t at, int64_t n, int64_t n_p);
  void (*transpose)(pn_pair *to, int64_t to_ld, const pn_pair *from, int64_t from_ld, int64_t rows, int64_t columns);
} pn_bf16_kernels;

extern const pn_bf16_kernels pn_product_avx512_bf16, pn_product_amx, pn_product_amx_emulated;

#endif
