/* product.h: gathered matrix products, the engine under every convolution.
**
** A convolution on channels-last data is, for each output pixel m and channel n,
**     c[m][n] = sum over taps and k of a[tap][m][k] * w[tap][k][n]
** where a[tap][m] points at the k channels of the input pixel that the tap sees, or at zeros outside the input
** (the indirect convolution algorithm; Dukhan 2019). No patch matrix is ever written.
**
** Tiles are MR pixels by NV vectors of channels; one table of micro-kernels a CPU feature. Sums run in a fixed order.
** Entry 0 is for a single channel: there the vectors run along k, and w is n_taps x (k rounded up to vectors). */
#ifndef PENUMBRA_PRODUCT_H
#define PENUMBRA_PRODUCT_H
#include "../cpu.h"

enum { PN_MOST_NV = 4, PN_MOST_MR = 12, PN_MOST_VL = 16 };

/* c[m][0..n-1] = start + sum; a: n_taps rows of MR pointers to k floats; w: n_taps x k x (NV*VL), padded with zeros; n <= NV*VL.
** start: zeros, or a bias of NV*VL; with add, c's own values are added at the end; with relu, what is then negative becomes 0. */
typedef void pn_tile_fn(float *const *c, const void *const *a, int64_t n_taps, int64_t k, const float *w, const float *bias,
                        int64_t n, bool add, bool relu);

/* g[i][0..NV*VL-1] += sum over p of a[p][first_row + i] * b[p][0..NV*VL-1], i < mi; g has row stride ldg. */
typedef void pn_outer_fn(float *g, int64_t ldg, const void *const *a, int64_t first_row, const float *b, int64_t n_p, int64_t mi);

typedef struct pn_product_kernels {
  int vl; /* floats a vector */
  int most_nv;
  int mr[PN_MOST_NV + 1]; /* pixels a tile, by NV */
  pn_tile_fn *tile[PN_MOST_NV + 1];
  int outer_mi, outer_most_nv; /* rows and most vectors of an outer-product tile */
  pn_outer_fn *outer[PN_MOST_NV + 1];
} pn_product_kernels;

extern const pn_product_kernels pn_product_avx2, pn_product_avx512;

#endif
