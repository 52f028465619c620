/* winograd.h: convolution by minimal filtering, where a kernel is 3 wide and moves by 1 (Lavin & Gray 2015; Winograd 1980).
**
** Along one axis F(m,3) makes m outputs from n = m + 2 inputs with n products instead of 3m:
**     y = A' [ (G w) . (B' x) ]          m = 2: 4 products for 6;  m = 4: 6 products for 12
** Axes nest, so F(2,3) along t and F(4,3) along h and w take 144 products for 864. Summed over channels, the products of one
** point of the transformed tile are a matrix product: tiles x channels_in by channels_in x channels_out, which product.h does.
** The gradient of x is the same with w turned round; the gradient of w is G' [ sum over tiles of (B' x) . (A dy) ].
**
** A pass transforms the lines of a small array of vectors (a vector: some channels) along one axis. */
#ifndef PENUMBRA_WINOGRAD_H
#define PENUMBRA_WINOGRAD_H
#include "convolve.h"

enum { PN_F23, PN_F43, PN_N_LINES };                                                   /* F(m,3) of a line */
enum { PN_INPUT, PN_OUTPUT, PN_EXPAND, PN_FILTER_IN, PN_FILTER_OUT, PN_N_TRANSFORMS }; /* B', A', A, G, G' */
enum { PN_WINOGRAD_MOST = 6 * 6 * 6, PN_WINOGRAD_VECTORS = 4 }; /* points of a tile; vectors in one transform */

/* One pass over an array [outer][line][inner] of elements, each some vectors of channels. Element i of the source is at
** src + i*src_step, or, where from is given, at from[i] + at; of the result likewise. Where to[i] is NULL nothing is written.
** n: the channels in use of `from` and `to` (the rest of the vectors reads as 0 and is not written). */
typedef struct pn_winograd_pass {
  const float *src, *const *from;
  float *dst, *const *to;
  int64_t src_step, dst_step, at, n, vectors;
  int outer, inner;
  const float *bias; /* to: added to each, n of them; may be NULL */
  bool add, relu;    /* to: added to what is there; then 0 where negative */
} pn_winograd_pass;

typedef struct pn_winograd_kernels {
  int vl;
  void (*pass[PN_N_LINES][PN_N_TRANSFORMS])(const pn_winograd_pass *);
} pn_winograd_kernels;

extern const pn_winograd_kernels pn_winograd_avx2, pn_winograd_avx512;

/* The tiles for a convolution: F(m,3) along t,h,w; m = 0: this axis has a kernel of 1. All 0: do it directly. */
typedef struct pn_winograd_tile {
  int m[3];
} pn_winograd_tile;

/* What serves best for a convolution or either adjoint (y and x as they stand there), by a count of what was measured to cost. */
pn_winograd_tile pn_winograd_choose(pn_pixels y, pn_pixels x, const pn_geometry *g);
static inline bool pn_winograd_direct(pn_winograd_tile t) { return !t.m[0] && !t.m[1] && !t.m[2]; }

/* y (+)= x * w, then the epilogue; with transposed, the adjoint in x: y is dx, x is dy, w still (O,I,3,3,3), low still the forward's. */
PN_CHECKED int pn_winograd_convolve(pn_pixels y, pn_pixels x, const float *w, pn_epilogue end, bool add, bool transposed,
                                    const pn_geometry *g, pn_winograd_tile tile);
/* dw += the adjoint in w. */
PN_CHECKED int pn_winograd_weight(float *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g, pn_winograd_tile tile);
#endif
