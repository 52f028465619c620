/* curves_body.h: the loops of curves.h. Define CURVES_TABLE before including it. */
#include <string.h>
#include "kernels/curve.h"
#include "kernels/curves.h"

enum { CHUNK = 256 };

static void sigmoid(real *restrict y, const real *restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = pn_sigmoid_of(x[i]);
}

/* Sums in double, in two vectors that take turns; the numbers of a chunk stay in L1 between the loops over it. */
#ifdef __AVX__
enum { WIDE = 4 };
#else
enum { WIDE = 2 };
#endif
typedef real few __attribute__((vector_size(WIDE * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef double few_doubles __attribute__((vector_size(WIDE * sizeof(double))));
#define AS_DOUBLES(p) __builtin_convertvector(*(const few *)(p), few_doubles)

static double total(few_doubles a, few_doubles b) {
  double sum = 0;
  for (int i = 0; i < WIDE; i++) sum += a[i] + b[i];
  return sum;
}

static void bce_chunk(pn_bce_run *sums, const real *restrict x, const real *restrict t, const real *restrict keep, bool binary,
                      int64_t n) {
  real l[CHUNK], y[CHUNK], k[CHUNK];
  int64_t padded = (n + 2 * WIDE - 1) / (2 * WIDE) * (2 * WIDE);
  int32_t outside = 0;
  for (int64_t i = 0; i < n; i++) l[i] = pn_bce_of(x[i], t[i]);
  if (keep) {
    for (int64_t i = 0; i < n; i++) k[i] = keep[i] != 0 ? 1 : 0;
    for (int64_t i = 0; i < n; i++) l[i] = keep[i] != 0 ? l[i] : 0;
    for (int64_t i = 0; i < n; i++) y[i] = keep[i] != 0 ? t[i] : 0;
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = t[i];
  }
  for (int64_t i = n; i < padded; i++) l[i] = y[i] = k[i] = 0;
  if (binary)
    for (int64_t i = 0; i < n; i++) outside += (y[i] != 0) & (y[i] != 1);
  else
    for (int64_t i = 0; i < n; i++) outside += !((y[i] >= 0) & (y[i] <= 1));
  few_doubles loss = { 0 }, more_loss = { 0 }, of_ones = { 0 }, more_of_ones = { 0 }, ones = { 0 }, more_ones = { 0 };
  for (int64_t i = 0; i < padded; i += 2 * WIDE) {
    few_doubles li = AS_DOUBLES(l + i), yi = AS_DOUBLES(y + i), lj = AS_DOUBLES(l + i + WIDE), yj = AS_DOUBLES(y + i + WIDE);
    loss += li, more_loss += lj;
    of_ones += li * yi, more_of_ones += lj * yj;
    ones += yi, more_ones += yj;
  }
  sums->loss += total(loss, more_loss);
  sums->loss_of_ones += total(of_ones, more_of_ones);
  sums->ones += total(ones, more_ones);
  few_doubles kept = { 0 }, more_kept = { 0 };
  for (int64_t i = 0; keep && i < padded; i += 2 * WIDE) kept += AS_DOUBLES(k + i), more_kept += AS_DOUBLES(k + i + WIDE);
  sums->kept += keep ? total(kept, more_kept) : (double)n;
  sums->outside += outside;
}

static void bce(pn_bce_run *sums, const real *x, const real *t, const real *keep, bool binary, int64_t n) {
  for (int64_t i = 0; i < n; i += CHUNK)
    bce_chunk(sums, x + i, t + i, keep ? keep + i : NULL, binary, n - i < CHUNK ? n - i : CHUNK);
}

static void bce_each(real *restrict y, const real *restrict x, const real *restrict t, const real *restrict keep,
                     const real weight[2], int64_t n) {
  const real w[2] = { weight[0], weight[1] };
  if (keep)
    for (int64_t i = 0; i < n; i++) y[i] = keep[i] != 0 ? pn_bce_weighted_of(x[i], t[i], w) : 0;
  else
    for (int64_t i = 0; i < n; i++) y[i] = pn_bce_weighted_of(x[i], t[i], w);
}

static void bce_slope(real *restrict dx, bool add, const real *restrict x, const real *restrict t, const real *restrict keep,
                      const real weight[2], int64_t n) {
  const real w[2] = { weight[0], weight[1] };
  if (keep && add)
    for (int64_t i = 0; i < n; i++) dx[i] += keep[i] != 0 ? pn_bce_slope_of(x[i], t[i], w) : 0;
  else if (keep)
    for (int64_t i = 0; i < n; i++) dx[i] = keep[i] != 0 ? pn_bce_slope_of(x[i], t[i], w) : 0;
  else if (add)
    for (int64_t i = 0; i < n; i++) dx[i] += pn_bce_slope_of(x[i], t[i], w);
  else
    for (int64_t i = 0; i < n; i++) dx[i] = pn_bce_slope_of(x[i], t[i], w);
}

const pn_curve_kernels CURVES_TABLE = { sigmoid, bce, bce_each, bce_slope };
