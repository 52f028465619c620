/* transposed.h: where a transposed convolution lays things down, along one axis: input i and tap k meet output i * stride - low + k. */
#ifndef PENUMBRA_KERNELS_TRANSPOSED_H
#define PENUMBRA_KERNELS_TRANSPOSED_H
#include <stdint.h>
#include "shared.h"

/* The n inputs that reach output o, from `first` on; the first with tap k, each next one with k - stride. */
typedef struct pn_reach {
  int64_t first, n, k;
} pn_reach;

PN_SHARED pn_reach pn_reach_of(int64_t o, int64_t n_in, int64_t kernel, int64_t stride, int64_t low) {
  int64_t at = o + low, last = at / stride, first = at < kernel ? 0 : (at - kernel) / stride + 1;
  if (last > n_in - 1) last = n_in - 1;
  return (pn_reach){ first, last < first ? 0 : last - first + 1, at - first * stride };
}

/* The taps of input i that land on outputs 0..n_out-1: [begin, end). */
PN_SHARED void pn_landing(int64_t i, int64_t n_out, int64_t kernel, int64_t stride, int64_t low, int64_t *begin, int64_t *end) {
  int64_t at = i * stride - low;
  *begin = at < 0 ? -at : 0;
  *end = n_out - at < kernel ? n_out - at : kernel;
}
#endif
