/* norm.h: the sweeps of batch normalisation, and of what ends a convolution, over rows of pixels: rows of c channels, `sx` elements from one to the next.
**
** norm_body.h holds the text once; norm.c compiles it for every CPU, norm_avx2.c and norm_avx512.c for wider vectors. */
#ifndef PENUMBRA_KERNELS_NORM_H
#define PENUMBRA_KERNELS_NORM_H
#include "internal.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Per channel, as arrays of c. y = scale * x + shift, then relu where asked. */
typedef struct pn_norm_line {
  const real *scale, *shift;
  bool relu;
} pn_norm_line;

typedef struct pn_norm_kernels {
  /* y = line(x) */
  void (*affine)(real *y, int64_t sy, const real *x, int64_t sx, int64_t rows, int64_t c, const pn_norm_line *line);
  /* mean[c] of the rows, and m2[c] = sum of (x - mean)^2 */
  void (*moments)(real *mean, real *m2, const real *x, int64_t sx, int64_t rows, int64_t c);
  /* With g = dy where line(x) passes relu, else 0: sum[c] of g, and product[c] = sum of g * (x - centre); product may be NULL */
  void (*gradient_sums)(real *sum, real *product, const real *x, int64_t sx, const real *dy, int64_t sdy, int64_t rows, int64_t c,
                        const pn_norm_line *line, const real *centre);
  /* dx (+)= scale * g + slope * (x - centre) + level; slope NULL: the first term only. dx may be dy */
  void (*gradient)(real *dx, int64_t sdx, bool add, const real *x, int64_t sx, const real *dy, int64_t sdy, int64_t rows, int64_t c,
                   const pn_norm_line *line, const real *slope, const real *centre, const real *level);
  /* Behind y = relu(scale * z + bias), with g = dy where y is positive (everywhere without y): sum[c] of g, and dz = scale * g
  ** (dz = g without scale; no dz without dz). dz may be dy. */
  void (*end_gradient)(real *sum, real *dz, int64_t sdz, const real *y, int64_t sy, const real *dy, int64_t sdy, int64_t rows,
                       int64_t c, const real *scale);
} pn_norm_kernels;

const pn_norm_kernels *pn_norm(void); /* those of the CPU variant in force */
extern const pn_norm_kernels pn_norm_plain, pn_norm_avx2, pn_norm_avx512;

#ifdef __cplusplus
}
#endif
#endif
