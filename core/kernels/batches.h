/* batches.h: matrix products of batches: which matrices meet, and where they lie. For every device.
**
** y = a b for each place of the axes before the last two, which are broadcast to each other by NumPy's rules. Where y lacks such an axis
** (the gradient of an input that was broadcast) the products along it are added up, in row order. Axes along which many products are
** one are folded into it: rows of a and y that follow one another, columns of b and y, or what is summed. */
#ifndef PENUMBRA_KERNELS_BATCHES_H
#define PENUMBRA_KERNELS_BATCHES_H
#include "kernels/reduce.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pn_batches {
  int64_t m, n, k;          /* a (m,k) by b (k,n) is y (m,n) */
  int64_t a[2], b[2], y[2]; /* strides of rows and of columns, in elements, as they are multiplied */
  int n_each, n_summed;
  pn_axis each[PN_MAX_DIMS], summed[PN_MAX_DIMS]; /* from: of a; with: of b; to: of y */
  int64_t each_count, summed_count;
} pn_batches;

/* With ta the matrices of a are (k,m), with tb those of b (n,k). */
PN_API void pn_batches_of(pn_batches *out, const pn_tensor *y, const pn_tensor *a, bool ta, const pn_tensor *b, bool tb);

#ifdef __cplusplus
}
#endif
#endif
