/* blas_plain.c: matrix products in plain C, for machines without OpenBLAS (-DPENUMBRA_BLAS=plain). A row of the result at a time;
** sums run over k in order. */
#include "blas.h"

typedef struct job {
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  real alpha, beta;
  const real *a, *b;
  real *c;
  const pn_axis *axes;
  int n_axes;
} job;

static void rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t row = begin; row < end; row++) {
    const pn_axis at = pn_axes_at(j->axes, j->n_axes, row / j->m);
    const int64_t i = row % j->m;
    const real *from = j->a + at.from;
    real *c = j->c + at.to + i * j->ldc;
    for (int64_t x = 0; x < j->n; x++) c[x] = j->beta == 0 ? 0 : j->beta * c[x];
    for (int64_t l = 0; l < j->k; l++) {
      const real a = j->alpha * (j->ta ? from[l * j->lda + i] : from[i * j->lda + l]);
      const real *b = j->b + at.with + (j->tb ? l : l * j->ldb);
      if (j->tb)
        for (int64_t x = 0; x < j->n; x++) c[x] += a * b[x * j->ldb];
      else
        for (int64_t x = 0; x < j->n; x++) c[x] += a * b[x];
    }
  }
}

void pn_gemms(const pn_axis *axes, int n_axes, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha,
              const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c, int64_t ldc) {
  job j = { transpose_a, transpose_b, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c, axes, n_axes };
  int64_t n_rows = m;
  for (int i = 0; i < n_axes; i++) n_rows *= axes[i].size;
  pn_parallel(n_rows, 8, rows, &j);
}

void pn_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc) {
  pn_gemms(NULL, 0, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
