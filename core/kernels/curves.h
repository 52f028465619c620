/* curves.h: exponentials over runs of numbers, for the losses and the sigmoid. In float they are polynomials, good to 2e-7
** of the result, that compilers turn into vector code; in the f64 build the C library's.
** curves_body.h holds the text once; curves.c compiles it for every CPU, curves_avx2.c and curves_avx512.c for wider vectors. */
#ifndef PENUMBRA_KERNELS_CURVES_H
#define PENUMBRA_KERNELS_CURVES_H
#include "internal.h"

typedef struct pn_bce_run {
  double loss, loss_of_ones, kept, ones;
  int64_t outside;
} pn_bce_run;

typedef struct pn_curve_kernels {
  void (*sigmoid)(real *y, const real *x, int64_t n);
  /* Adds to *sums, over the elements with keep != 0 (all when keep is NULL): l(x, t), l * t, 1, t, and how many t are not in
  ** 0..1, with binary neither 0 nor 1; l = max(x,0) - x*t + log(1 + e^-|x|). */
  void (*bce)(pn_bce_run *sums, const real *x, const real *t, const real *keep, bool binary, int64_t n);
  /* y = weight[t >= 0.5] * l(x, t) where keep != 0, else 0 */
  void (*bce_each)(real *y, const real *x, const real *t, const real *keep, const real weight[2], int64_t n);
  /* dx (+)= weight[t >= 0.5] * (sigmoid(x) - t) where keep != 0, else 0 */
  void (*bce_slope)(real *dx, bool add, const real *x, const real *t, const real *keep, const real weight[2], int64_t n);
} pn_curve_kernels;

const pn_curve_kernels *pn_curves(void); /* those of the CPU variant in force */
extern const pn_curve_kernels pn_curves_plain, pn_curves_avx2, pn_curves_avx512;

#endif
