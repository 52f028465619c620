/* tps.c: thin-plate splines in the plane: the smoothest surface through values at scattered points.
** Source: Bookstein, "Principal warps" (PAMI 1989): f(p) = a0 + a1 x + a2 y + sum w_i U(|p - p_i|), U(r) = r^2 log r, with
** sum w_i = sum w_i x_i = sum w_i y_i = 0. Coefficients are laid out [n + 3][n_values]: the w_i, then a0, a1, a2. */
#include <string.h>
#include "warp.h"

/* U as a function of r^2, where it needs no root: r^2 log r = r^2 log(r^2) / 2. */
static double kernel(double r2) { return r2 > 0 ? 0.5 * r2 * log(r2) : 0; }

/* Solves a (m x m) x = b (m x k) in place by elimination with row pivots. -1 when a is singular to working precision. */
static int solve(double *a, double *b, int m, int k) {
  double largest = 0;
  for (int i = 0; i < m * m; i++) largest = fmax(largest, fabs(a[i]));
  for (int c = 0; c < m; c++) {
    int pivot = c;
    for (int r = c + 1; r < m; r++)
      if (fabs(a[r * m + c]) > fabs(a[pivot * m + c])) pivot = r;
    if (!(fabs(a[pivot * m + c]) > 1e-12 * largest)) return -1;
    if (pivot != c) {
      for (int j = 0; j < m; j++) {
        double t = a[c * m + j];
        a[c * m + j] = a[pivot * m + j];
        a[pivot * m + j] = t;
      }
      for (int j = 0; j < k; j++) {
        double t = b[c * k + j];
        b[c * k + j] = b[pivot * k + j];
        b[pivot * k + j] = t;
      }
    }
    for (int r = c + 1; r < m; r++) {
      double f = a[r * m + c] / a[c * m + c];
      if (f == 0) continue;
      for (int j = c; j < m; j++) a[r * m + j] -= f * a[c * m + j];
      for (int j = 0; j < k; j++) b[r * k + j] -= f * b[c * k + j];
    }
  }
  for (int c = m - 1; c >= 0; c--)
    for (int j = 0; j < k; j++) {
      double s = b[c * k + j];
      for (int i = c + 1; i < m; i++) s -= a[c * m + i] * b[i * k + j];
      b[c * k + j] = s / a[c * m + c];
    }
  return 0;
}

int pn_tps_fit(int n, const double *points, const double *values, int n_values, double *coefficients) {
  if (n < 3) return pn_fail("thin-plate spline: needs at least 3 points, got %d", n);
  if (n > 1000) return pn_fail("thin-plate spline: at most 1000 points, got %d", n);
  if (n_values < 1) return pn_fail("thin-plate spline: needs at least one value per point, got %d", n_values);
  int m = n + 3;
  for (int i = 0; i < 2 * n; i++)
    if (!isfinite(points[i])) return pn_fail("thin-plate spline: point %d is not finite", i / 2 + 1);
  /* Solved in units of the spread of the points, so that the affine part and the kernel have like sizes. */
  double cx = 0, cy = 0, spread = 0;
  for (int i = 0; i < n; i++) {
    cx += points[2 * i] / n;
    cy += points[2 * i + 1] / n;
  }
  for (int i = 0; i < n; i++) spread = fmax(spread, hypot(points[2 * i] - cx, points[2 * i + 1] - cy));
  if (!(spread > 0)) return pn_fail("thin-plate spline: all %d points are the same", n);
  double *a = pn_alloc_zero(sizeof(double) * (size_t)m * (size_t)(m + n_values));
  if (!a) return -1;
  double *b = a + m * m;
  for (int i = 0; i < n; i++) {
    double xi = (points[2 * i] - cx) / spread, yi = (points[2 * i + 1] - cy) / spread;
    for (int j = 0; j < i; j++) {
      double dx = xi - (points[2 * j] - cx) / spread, dy = yi - (points[2 * j + 1] - cy) / spread;
      a[i * m + j] = a[j * m + i] = kernel(dx * dx + dy * dy);
    }
    a[i * m + n] = a[n * m + i] = 1;
    a[i * m + n + 1] = a[(n + 1) * m + i] = xi;
    a[i * m + n + 2] = a[(n + 2) * m + i] = yi;
    for (int v = 0; v < n_values; v++) b[i * n_values + v] = values[i * n_values + v];
  }
  if (solve(a, b, m, n_values)) {
    pn_free(a);
    return pn_fail("thin-plate spline: the %d points lie on a line, or two of them coincide", n);
  }
  /* Back to pixels. With r = spread * s, U(s) = (U(r) - r^2 log(spread)) / spread^2, and the r^2 terms form an affine function
  ** because sum w = 0 and sum w p = 0: sum w_i r_i^2 = sum w_i |p_i|^2 is a constant. */
  for (int v = 0; v < n_values; v++) {
    double constant = 0, s2 = spread * spread;
    for (int i = 0; i < n; i++) {
      double w = b[i * n_values + v] / s2, dx = points[2 * i] - cx, dy = points[2 * i + 1] - cy;
      coefficients[i * n_values + v] = w;
      constant -= w * log(spread) * (dx * dx + dy * dy);
    }
    double a1 = b[(n + 1) * n_values + v] / spread, a2 = b[(n + 2) * n_values + v] / spread;
    coefficients[n * n_values + v] = b[n * n_values + v] - a1 * cx - a2 * cy + constant;
    coefficients[(n + 1) * n_values + v] = a1;
    coefficients[(n + 2) * n_values + v] = a2;
  }
  pn_free(a);
  return 0;
}

void pn_tps_at(int n, const double *points, const double *coefficients, int n_values, double x, double y, double *out) {
  const double *affine = coefficients + n * n_values;
  for (int v = 0; v < n_values; v++) out[v] = affine[v] + affine[n_values + v] * x + affine[2 * n_values + v] * y;
  for (int i = 0; i < n; i++) {
    double dx = x - points[2 * i], dy = y - points[2 * i + 1], u = kernel(dx * dx + dy * dy);
    for (int v = 0; v < n_values; v++) out[v] += coefficients[i * n_values + v] * u;
  }
}
