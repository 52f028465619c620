/* taps.h: for one pixel, what its neighbours say: the largest of a list of pixels, its gradient, and a weighted sum; and, for a
** row of single numbers, what lies between two neighbours.
**
** A list names pixels by offset (in elements) from one address; each pixel is c channels in a row. The lists are built by
** pooling and resizing once for many pixels, so these loops hold all the arithmetic of those operations.
** taps_plain.c is the definition; taps_avx2.c and taps_avx512.c give the same bits but for the rounding of fused multiply-adds. */
#ifndef PENUMBRA_KERNELS_TAPS_H
#define PENUMBRA_KERNELS_TAPS_H
#include "internal.h"

typedef struct pn_tap_kernels {
  /* y[c] = largest of x[offset[k] + c]; index[c] = number[k] of the first that is largest (index may be NULL). NaN wins. */
  void (*largest)(real *y, uint8_t *index, const real *x, const int64_t *offset, const uint8_t *number, int64_t n, int64_t c);
  /* dx[c] (+)= sum over k of dy[dy_offset[k] + c] where index[index_offset[k] + c] == number[k] */
  void (*routed)(real *dx, bool add, const real *dy, const int64_t *dy_offset, const uint8_t *index, const int64_t *index_offset,
                 const uint8_t *number, int64_t n, int64_t c);
  /* y[c] (+)= sum over k of weight[k] * x[offset[k] + c] */
  void (*weighted)(real *y, bool add, const real *x, const int64_t *offset, const real *weight, int64_t n, int64_t c);
  /* y[i] = (1 - share[i]) * x[low[i]] + share[i] * x[low[i] + 1], or just the one whose share is 1 */
  void (*between)(real *y, const real *x, const int32_t *low, const real *share, int64_t n);
} pn_tap_kernels;

const pn_tap_kernels *pn_taps(void); /* those of the CPU variant in force */
extern const pn_tap_kernels pn_taps_plain, pn_taps_avx2, pn_taps_avx512;

#endif
