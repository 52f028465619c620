/* update_body.h: the loops of update.h. Define UPDATE_TABLE before including it. The rules are explained in optim.c. */
#include <tgmath.h>
#include "kernels/update.h"

static void sgd(real *restrict param, real *restrict buffer, const real *restrict grad, int64_t n, const pn_sgd_numbers *numbers) {
  const pn_sgd_numbers s = *numbers;
  const real m = s.momentum;
  switch (s.rule) {
  case PN_RULE_PLAIN:
    for (int64_t i = 0; i < n; i++) param[i] -= s.rate * (s.scale * grad[i] + s.decay * param[i]);
    return;
  case PN_RULE_TORCH: {
    const real through = s.nesterov ? 1 : 0, kept = s.nesterov ? m : 1;
    for (int64_t i = 0; i < n; i++) {
      real g = s.scale * grad[i] + s.decay * param[i];
      real b = m * buffer[i] + s.fresh * g;
      buffer[i] = b;
      param[i] -= s.rate * (through * g + kept * b);
    }
    return;
  }
  case PN_RULE_TORCH_FIRST: {
    const real all = s.nesterov ? 1 + m : 1;
    for (int64_t i = 0; i < n; i++) {
      real g = s.scale * grad[i] + s.decay * param[i];
      buffer[i] = g;
      param[i] -= s.rate * (all * g);
    }
    return;
  }
  case PN_RULE_CAFFE: {
    const real ahead = s.nesterov ? 1 + m : 1, back = s.nesterov ? m : 0;
    for (int64_t i = 0; i < n; i++) {
      real g = s.scale * grad[i] + s.decay * param[i], old = buffer[i];
      real b = m * old + s.rate * g;
      buffer[i] = b;
      param[i] -= ahead * b - back * old;
    }
    return;
  }
  }
}

static void adam(real *restrict param, real *restrict mean, real *restrict square, const real *restrict grad, int64_t n,
                 const pn_adam_numbers *numbers) {
  const pn_adam_numbers s = *numbers;
  for (int64_t i = 0; i < n; i++) {
    real p = param[i] * s.shrink;
    real g = s.scale * grad[i] + s.decay * p;
    real m = s.beta1 * mean[i] + (1 - s.beta1) * g;
    real v = s.beta2 * square[i] + (1 - s.beta2) * g * g;
    mean[i] = m;
    square[i] = v;
    param[i] = p - s.rate * m / (sqrt(v) * s.root + s.eps);
  }
}

/* Four vectors that take turns. */
#ifdef __AVX__
enum { WIDE = 4 };
#else
enum { WIDE = 2 };
#endif
typedef real few __attribute__((vector_size(WIDE * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef double few_doubles __attribute__((vector_size(WIDE * sizeof(double))));

static double sum_squares(const real *x, int64_t n) {
  few_doubles sums[4] = { { 0 } };
  int64_t i = 0;
  for (; i + 4 * WIDE <= n; i += 4 * WIDE)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      few_doubles v = __builtin_convertvector(*(const few *)(x + i + j * WIDE), few_doubles);
      sums[j] += v * v;
    }
  double sum = 0;
  for (int j = 0; j < WIDE; j++) sum += (sums[0][j] + sums[1][j]) + (sums[2][j] + sums[3][j]);
  for (; i < n; i++) sum += (double)x[i] * (double)x[i];
  return sum;
}

const pn_update_kernels UPDATE_TABLE = { sgd, adam, sum_squares };
