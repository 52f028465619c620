/* update_rules.h: what a step of an optimiser does to one number, for the loops of update_body.h and for kernels. optim.c explains the
** rules. And the verdict on the gradients of a step: three doubles on the device of the parameters (pn_grad_verdict). */
#ifndef PENUMBRA_KERNELS_UPDATE_RULES_H
#define PENUMBRA_KERNELS_UPDATE_RULES_H
#ifdef __cplusplus
#include <math.h>
#else
#include <tgmath.h>
#endif
#include "kernels/update.h"
#include "shared.h"

PN_SHARED void pn_sgd_plain(real *param, real grad, const pn_sgd_numbers *s) {
  *param -= s->rate * (s->scale * grad + s->decay * *param);
}

PN_SHARED void pn_sgd_torch(real *param, real *buffer, real grad, const pn_sgd_numbers *s) {
  const real through = s->nesterov ? 1 : 0, kept = s->nesterov ? s->momentum : 1;
  real g = s->scale * grad + s->decay * *param;
  real b = s->momentum * *buffer + s->fresh * g;
  *buffer = b;
  *param -= s->rate * (through * g + kept * b);
}

PN_SHARED void pn_sgd_torch_first(real *param, real *buffer, real grad, const pn_sgd_numbers *s) {
  const real all = s->nesterov ? 1 + s->momentum : 1;
  real g = s->scale * grad + s->decay * *param;
  *buffer = g;
  *param -= s->rate * (all * g);
}

PN_SHARED void pn_sgd_caffe(real *param, real *buffer, real grad, const pn_sgd_numbers *s) {
  const real ahead = s->nesterov ? 1 + s->momentum : 1, back = s->nesterov ? s->momentum : 0;
  real g = s->scale * grad + s->decay * *param, old = *buffer;
  real b = s->momentum * old + s->rate * g;
  *buffer = b;
  *param -= ahead * b - back * old;
}

PN_SHARED void pn_adam_one(real *param, real *mean, real *square, real grad, const pn_adam_numbers *s) {
  real p = *param * s->shrink;
  real g = s->scale * grad + s->decay * p;
  real m = s->beta1 * *mean + (1 - s->beta1) * g;
  real v = s->beta2 * *square + (1 - s->beta2) * g * g;
  *mean = m;
  *square = v;
  *param = p - s->rate * m / (sqrt(v) * s->root + s->eps);
}

/* From the sum of the squares of all gradients. */
PN_SHARED void pn_verdict_set(double *verdict, double squares, double clip_norm) {
  double norm = sqrt(squares) / verdict[PN_VERDICT_LOSS_SCALE];
  if (!(norm - norm == 0)) norm = (double)INFINITY;
  verdict[PN_VERDICT_NORM] = norm;
  verdict[PN_VERDICT_FACTOR] = (clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1) / verdict[PN_VERDICT_LOSS_SCALE];
}

/* May the step be taken? NULL: no one asked. */
PN_SHARED bool pn_verdict_allows(const double *verdict) {
  return !verdict || verdict[PN_VERDICT_NORM] - verdict[PN_VERDICT_NORM] == 0;
}
PN_SHARED real pn_verdict_scale(const double *verdict, real scale) {
  return verdict ? (real)((double)scale * verdict[PN_VERDICT_FACTOR]) : scale;
}
#endif
