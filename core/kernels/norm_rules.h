/* norm_rules.h: what batch_norm works out for each channel, for the CPU and for kernels: statistics joined from parts, the line that
** normalises, and what the statistics add to the gradient. core/ops/batch_norm.c says what it is for. */
#ifndef PENUMBRA_KERNELS_NORM_RULES_H
#define PENUMBRA_KERNELS_NORM_RULES_H
#include <math.h>
#include "op.h"
#include "shared.h"

enum { PN_NORM_FROZEN, PN_NORM_BATCH, PN_NORM_MOVING };
enum {
  PN_NORM_INV,
  PN_NORM_MEAN,
  PN_NORM_CENTRE,
  PN_NORM_SHIFT,
  PN_NORM_KEPT
}; /* 1/sqrt(v + eps), m, the batch's mean; beta - m inv */

typedef struct pn_norm_rule {
  int mode;
  bool update;
  double eps, alpha, momentum; /* alpha: 1 for batch, 0 for frozen */
} pn_norm_rule;

static inline pn_norm_rule pn_norm_rule_of(const pn_call *call) {
  pn_norm_rule r = { (int)pn_arg_int(call, "mode"), pn_arg_int(call, "update") != 0, pn_arg_real(call, "eps"), 0,
                     pn_arg_real(call, "momentum") };
  r.alpha = r.mode == PN_NORM_BATCH ? 1 : r.mode == PN_NORM_MOVING ? pn_arg_real(call, "alpha") : 0;
  return r;
}

/* n more elements with their mean and the sum of their squared distances from it join `before` others (Chan, Golub, LeVeque 1979). */
PN_SHARED void pn_norm_join(double *mean, double *m2, double before, double n, double more_mean, double more_m2) {
  const double delta = more_mean - *mean, share = n / (before + n);
  *mean += delta * share;
  *m2 += more_m2 + delta * delta * before * share;
}

/* From the batch's mean and variance (not looked at in frozen mode) and the stored ones, which move where asked, to inv, m and centre. */
PN_SHARED void pn_norm_settle(const pn_norm_rule *rule, double mean, double var, real *stored_mean, real *stored_var, real *inv,
                              real *m_out, real *centre) {
  const double a = rule->alpha;
  const double m = a == 1 ? mean : rule->mode == PN_NORM_FROZEN ? (double)*stored_mean : (1 - a) * (double)*stored_mean + a * mean;
  const double v = a == 1 ? var : rule->mode == PN_NORM_FROZEN ? (double)*stored_var : (1 - a) * (double)*stored_var + a * var;
  *inv = (real)(1 / sqrt(v + rule->eps));
  *m_out = (real)m;
  *centre = (real)(rule->mode == PN_NORM_FROZEN ? m : mean);
  if (rule->update) {
    *stored_mean = (real)(rule->momentum * (double)*stored_mean + (1 - rule->momentum) * mean);
    *stored_var = (real)(rule->momentum * (double)*stored_var + (1 - rule->momentum) * var);
  }
}

PN_SHARED real pn_norm_shift(real beta, real m, real inv) { return (real)((double)beta - (double)m * (double)inv); }

/* What the statistics add to dx: with S1 = sum g, S2 = sum g (x - batch mean), M pixels and inv = 1/sqrt(v + eps)
**   dx = inv g - alpha inv S1 / M - alpha inv^3 (S2 + (batch mean - m) S1) / M * (x - batch mean) */
PN_SHARED void pn_norm_through(double alpha, double count, real inv_of, real m, real centre, double s1, double s2, real *slope,
                               real *level) {
  const double inv = (double)inv_of, drift = (double)centre - (double)m, share = alpha / count;
  *slope = (real)(-share * inv * inv * inv * (s2 + drift * s1));
  *level = (real)(-share * inv * s1);
}
#endif
