/* taps_plain.c: the definition of taps.h. */
#include "kernels/taps.h"

enum { GROUP = 16 }; /* channels at a time, so that their sums stay close by */

static void largest(real *y, uint8_t *index, const real *x, const int64_t *offset, const uint8_t *number, int64_t n, int64_t c) {
  for (int64_t i = 0; i < c; i++) {
    real best = x[offset[0] + i];
    uint8_t winner = number[0];
    for (int64_t k = 1; k < n; k++) {
      real value = x[offset[k] + i];
      if (value > best || value != value) {
        best = value;
        winner = number[k];
      }
    }
    y[i] = best;
    if (index) index[i] = winner;
  }
}

static void routed(real *dx, bool add, const real *dy, const int64_t *dy_offset, const uint8_t *index, const int64_t *index_offset,
                   const uint8_t *number, int64_t n, int64_t c) {
  for (int64_t i = 0; i < c; i++) {
    real sum = add ? dx[i] : 0;
    for (int64_t k = 0; k < n; k++) {
      if (index[index_offset[k] + i] == number[k]) sum += dy[dy_offset[k] + i];
    }
    dx[i] = sum;
  }
}

static void weighted(real *y, bool add, const real *x, const int64_t *offset, const real *weight, int64_t n, int64_t c) {
  for (int64_t i = 0; i < c; i += GROUP) {
    const int64_t m = pn_min64(GROUP, c - i);
    real sum[GROUP];
    for (int64_t g = 0; g < m; g++) sum[g] = add ? y[i + g] : 0;
    for (int64_t k = 0; k < n; k++) {
      const real *from = x + offset[k] + i;
      for (int64_t g = 0; g < m; g++) sum[g] += weight[k] * from[g];
    }
    for (int64_t g = 0; g < m; g++) y[i + g] = sum[g];
  }
}

static void between(real *y, const real *x, const int32_t *low, const real *share, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const real *p = x + low[i], w = share[i];
    y[i] = w == 0 ? p[0] : w == 1 ? p[1] : (1 - w) * p[0] + w * p[1];
  }
}

const pn_tap_kernels pn_taps_plain = { largest, routed, weighted, between };
