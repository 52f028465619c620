/* bce.h: what the binary cross entropies share: one pass for the sums, one for the gradient.
**
** With logit x and target y the loss of an element is l = max(x,0) - x*y + log(1 + e^-|x|), its slope sigmoid(x) - y. Sums are
** taken in double over blocks that depend on the shape alone. Elements where void is not 0 are left out. */
#ifndef PENUMBRA_KERNELS_BCE_H
#define PENUMBRA_KERNELS_BCE_H
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pn_bce_sums { /* over the elements that count: [0] with the share 1 - target, [1] with the share target */
  double loss[2], n[2];
  int64_t n_outside; /* targets that are not in 0..1, or with binary not 0 or 1 */
} pn_bce_sums;

/* call: x target void?; targets and void of the real type or u8. */
PN_CHECKED int pn_bce_shape(pn_call *call);
PN_CHECKED int pn_bce_sum(pn_call *call, bool binary, pn_bce_sums *out);
/* dx (+)= weight[y >= 0.5] * dy * (sigmoid(x) - y) */
PN_CHECKED int pn_bce_back(pn_call *call, const double *weight);
/* What norm=mean|sum|batch divides by: n elements that count, the size of axis 1 or 1. */
double pn_bce_divisor(const pn_call *call, double n);

#ifdef __cplusplus
}
#endif
#endif
