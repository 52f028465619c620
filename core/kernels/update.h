/* update.h: the loops of the optimisers (optim.c) over adjacent numbers; their rules are in update_rules.h.
**
** update_body.h holds the text once; update.c compiles it for every CPU, update_avx2.c and update_avx512.c for wider vectors. */
#ifndef PENUMBRA_KERNELS_UPDATE_H
#define PENUMBRA_KERNELS_UPDATE_H
#include "internal.h"

typedef enum pn_sgd_rule { PN_RULE_PLAIN, PN_RULE_TORCH, PN_RULE_TORCH_FIRST, PN_RULE_CAFFE } pn_sgd_rule;

typedef struct pn_sgd_numbers {
  pn_sgd_rule rule;                         /* plain: no buffer; first: the buffer holds nothing yet */
  real scale, decay, rate, momentum, fresh; /* fresh: the weight of g in the buffer */
  bool nesterov;
} pn_sgd_numbers;

typedef struct pn_adam_numbers {
  real scale, decay, shrink, rate, beta1, beta2, root, eps; /* rate: lr/(1-b1^t); root: 1/sqrt(1-b2^t) */
} pn_adam_numbers;

typedef union pn_update_numbers {
  pn_sgd_numbers sgd;
  pn_adam_numbers adam;
} pn_update_numbers;

/* One tensor of a step: adjacent numbers in one memory order. state: the buffer of SGD (NULL: plain rule), or mean and square. */
typedef struct pn_update {
  real *param, *state[2];
  const real *grad;
  int64_t count;
  pn_update_numbers numbers;
} pn_update;

typedef struct pn_update_kernels {
  void (*sgd)(real *param, real *buffer, const real *grad, int64_t n, const pn_sgd_numbers *numbers);
  void (*adam)(real *param, real *mean, real *square, const real *grad, int64_t n, const pn_adam_numbers *numbers);
  double (*sum_squares)(const real *x, int64_t n); /* in double */
} pn_update_kernels;

const pn_update_kernels *pn_updates(void); /* those of the CPU variant in force */
extern const pn_update_kernels pn_updates_plain, pn_updates_avx2, pn_updates_avx512;

#endif
