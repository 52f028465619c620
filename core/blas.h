/* blas.h: the one place that knows the BLAS. */
#ifndef PENUMBRA_BLAS_H
#define PENUMBRA_BLAS_H
#include "kernels/reduce.h"
/* c (m x n, rows of ldc) = alpha * op(a) op(b) + beta * c, row-major. Split into fixed panels of rows, so that the result
** does not depend on the number of threads. */
void pn_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc);
/* The same for each place of some axes: from one to the next a moves by `from`, b by `with` and c by `to` elements; 0: one for all, but
** not of c. Each is the product that pn_gemm makes, to the bit. */
void pn_gemms(const pn_axis *axes, int n_axes, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha,
              const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c, int64_t ldc);
#endif
