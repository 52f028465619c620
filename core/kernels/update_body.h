/* update_body.h: the loops of update.h. Define UPDATE_TABLE before including it. */
#include "kernels/update_rules.h"

static void sgd(real *restrict param, real *restrict buffer, const real *restrict grad, int64_t n, const pn_sgd_numbers *numbers) {
  const pn_sgd_numbers s = *numbers;
  switch (s.rule) {
  case PN_RULE_PLAIN:
    for (int64_t i = 0; i < n; i++) pn_sgd_plain(param + i, grad[i], &s);
    return;
  case PN_RULE_TORCH:
    for (int64_t i = 0; i < n; i++) pn_sgd_torch(param + i, buffer + i, grad[i], &s);
    return;
  case PN_RULE_TORCH_FIRST:
    for (int64_t i = 0; i < n; i++) pn_sgd_torch_first(param + i, buffer + i, grad[i], &s);
    return;
  case PN_RULE_CAFFE:
    for (int64_t i = 0; i < n; i++) pn_sgd_caffe(param + i, buffer + i, grad[i], &s);
    return;
  }
}

static void adam(real *restrict param, real *restrict mean, real *restrict square, const real *restrict grad, int64_t n,
                 const pn_adam_numbers *numbers) {
  const pn_adam_numbers s = *numbers;
  for (int64_t i = 0; i < n; i++) pn_adam_one(param + i, mean + i, square + i, grad[i], &s);
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
