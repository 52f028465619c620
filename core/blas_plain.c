/* blas_plain.c: matrix products in plain C, for machines without OpenBLAS (-DPENUMBRA_BLAS=plain). A row of the result at a time;
** sums run over k in order. */
#include "blas.h"

typedef struct job {
  bool ta, tb;
  int64_t n, k, lda, ldb, ldc;
  real alpha, beta;
  const real *a, *b;
  real *c;
} job;

static void rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t i = begin; i < end; i++) {
    real *c = j->c + i * j->ldc;
    for (int64_t x = 0; x < j->n; x++) c[x] = j->beta == 0 ? 0 : j->beta * c[x];
    for (int64_t l = 0; l < j->k; l++) {
      const real a = j->alpha * (j->ta ? j->a[l * j->lda + i] : j->a[i * j->lda + l]);
      const real *b = j->tb ? j->b + l : j->b + l * j->ldb;
      if (j->tb)
        for (int64_t x = 0; x < j->n; x++) c[x] += a * b[x * j->ldb];
      else
        for (int64_t x = 0; x < j->n; x++) c[x] += a * b[x];
    }
  }
}

void pn_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc) {
  job j = { transpose_a, transpose_b, n, k, lda, ldb, ldc, alpha, beta, a, b, c };
  pn_parallel(m, 8, rows, &j);
}
