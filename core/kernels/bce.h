/* bce.h: what the binary cross entropies share: one pass for the sums, one for the gradient; with norm none one more for what each
** element loses, as the sums know the weights.
**
** With logit x and target y the loss of an element is l = max(x,0) - x*y + log(1 + e^-|x|), its slope sigmoid(x) - y. Sums are
** taken in double over blocks that depend on the shape alone. Elements where void is not 0 are left out. */
#ifndef PENUMBRA_KERNELS_BCE_H
#define PENUMBRA_KERNELS_BCE_H
#include "op.h"
#include "shared.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pn_bce_sums { /* over the elements that count: [0] with the share 1 - target, [1] with the share target */
  double loss[2], n[2];
  int64_t n_outside; /* targets that are not in 0..1, or with binary not 0 or 1 */
} pn_bce_sums;

/* The loss, and what it weighs the slope of an element with, by the side its target is on. */
typedef struct pn_bce_result {
  double loss, weight[2];
} pn_bce_result;

/* What becomes of the sums. divisor: of all, 0 for the number of elements that count. */
typedef struct pn_bce_rule {
  bool balanced, zero_when_empty;
  double divisor;
} pn_bce_rule;

/* call: x target void?; targets and void of the real type or u8. */
PN_CHECKED int pn_bce_shape(pn_call *call);
PN_API bool pn_bce_each(const pn_call *call); /* norm none: a loss for each element? */
PN_API pn_bce_rule pn_bce_rule_of(const pn_call *call, bool balanced);
PN_CHECKED int pn_bce_forward(pn_call *call, bool balanced);
PN_CHECKED int pn_bce_backward(pn_call *call); /* dx (+)= weight[y >= 0.5] * dy * (sigmoid(x) - y) */

PN_SHARED pn_bce_result pn_bce_join(const pn_bce_sums *s, pn_bce_rule rule) {
  const double zeros = s->n[0], ones = s->n[1], n = zeros + ones, divisor = rule.divisor > 0 ? rule.divisor : n > 0 ? n : 1;
  pn_bce_result r = {
    0, {1, 1}
  };
  if (rule.balanced && (n == 0 || rule.zero_when_empty || (zeros > 0 && ones > 0))) {
    r.weight[0] = n > 0 ? ones / n : 0;
    r.weight[1] = n > 0 ? zeros / n : 0;
  }
  r.weight[0] /= divisor;
  r.weight[1] /= divisor;
  r.loss = rule.balanced ? r.weight[0] * s->loss[0] + r.weight[1] * s->loss[1] : (s->loss[0] + s->loss[1]) / divisor;
  return r;
}

#ifdef __cplusplus
}
#endif
#endif
