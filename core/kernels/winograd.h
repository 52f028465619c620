/* winograd.h: convolution by minimal filtering, where a kernel is 3 (or 4) wide and moves by 1 (Lavin & Gray 2015; Winograd 1980).
**
** Along one axis F(m,r) makes m outputs of r taps from n = m + r - 1 inputs with n products instead of m r:
**     y = A' [ (G w) . (B' x) ]          F(2,3): 4 products for 6;  F(4,3): 6 products for 12
** Axes nest, so F(2,3) along t and F(4,3) along h and w take 144 products for 864. Summed over channels, the products of one
** point of the transformed tile are a matrix product: tiles x channels_in by channels_in x channels_out, which product.h does.
** The gradient of x is the same with w turned round; the gradient of w is G' [ sum over tiles of (B' x) . (A dy) ].
**
** A stride of 2 folds away: the even and the odd pixels of an axis are channels of their own, so the 7x7x7 stem on 3 channels at
** stride 2 is 4x4x4 taps on 24 channels at stride 1, for which F(3,4) (6 products for 12) serves.
**
** A pass transforms the lines of a small array of vectors (a vector: some channels) along one axis. */
#ifndef PENUMBRA_WINOGRAD_H
#define PENUMBRA_WINOGRAD_H
#include "geometry.h"

enum { PN_F23, PN_F43, PN_F34, PN_N_LINES };                                           /* F(m,r) of a line */
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

/* The tiles for a convolution: along t,h,w 2 for F(2,3), 4 for F(4,3), 3 for F(3,4), 0 where the kernel is 1. All 0: do it directly. */
typedef struct pn_winograd_tile {
  int m[3];
} pn_winograd_tile;

/* The convolution with stride 2 as one with stride 1: x' of x.c times `phases` channels, kernel rounded up. */
typedef struct pn_fold {
  int phases[3], kernel[3];
  pn_winograd_tile tile; /* direct: does not fold, or not with profit */
} pn_fold;
pn_fold pn_fold_choose(pn_pixels y, pn_pixels x, const pn_geometry *g);
PN_CHECKED int pn_fold_convolve(pn_pixels y, pn_pixels x, const float *w, pn_epilogue end, const pn_geometry *g, const pn_fold *f);
PN_CHECKED int pn_fold_weight(float *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g, const pn_fold *f);

/* The cost of a convolution in such tiles, and of a direct one, in multiply-adds of vectors. */
double pn_winograd_cost(pn_winograd_tile tile, pn_pixels y, pn_pixels x);
double pn_direct_cost(pn_pixels y, pn_pixels x, const pn_geometry *g);
bool pn_winograd_off(void);

/* What serves best for a convolution or either adjoint (y and x as they stand there), by a count of what was measured to cost. */
pn_winograd_tile pn_winograd_choose(pn_pixels y, pn_pixels x, const pn_geometry *g);
static inline bool pn_winograd_direct(pn_winograd_tile t) { return !t.m[0] && !t.m[1] && !t.m[2]; }

/* y (+)= x * w, then the epilogue; with transposed, the adjoint in x: y is dx, x is dy, w still (O,I,3,3,3), low still the forward's. */
PN_CHECKED int pn_winograd_convolve(pn_pixels y, pn_pixels x, const float *w, pn_epilogue end, bool add, bool transposed,
                                    const pn_geometry *g, pn_winograd_tile tile);
/* dw += the adjoint in w. */
PN_CHECKED int pn_winograd_weight(float *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g, pn_winograd_tile tile);
#endif
