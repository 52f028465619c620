/* blas.c: matrix products on OpenBLAS, held to one thread a call; our own threads share the rows of the result. */
#include <pthread.h>
#include <cblas.h>
#include "blas.h"

enum { PANEL = 128 };

typedef struct job {
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  real alpha, beta;
  const real *a, *b;
  real *c;
} job;

static void panels(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t p = begin; p < end; p++) {
    int64_t first = p * PANEL, rows = pn_min64(PANEL, j->m - first);
    const real *a = j->ta ? j->a + first : j->a + first * j->lda;
    CBLAS_TRANSPOSE ta = j->ta ? CblasTrans : CblasNoTrans, tb = j->tb ? CblasTrans : CblasNoTrans;
#ifdef PN_F64_BUILD
    cblas_dgemm(CblasRowMajor, ta, tb, (blasint)rows, (blasint)j->n, (blasint)j->k, j->alpha, a, (blasint)j->lda, j->b,
                (blasint)j->ldb, j->beta, j->c + first * j->ldc, (blasint)j->ldc);
#else
    cblas_sgemm(CblasRowMajor, ta, tb, (blasint)rows, (blasint)j->n, (blasint)j->k, j->alpha, a, (blasint)j->lda, j->b,
                (blasint)j->ldb, j->beta, j->c + first * j->ldc, (blasint)j->ldc);
#endif
  }
}

static void one_thread(void) { openblas_set_num_threads(1); }

void pn_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, one_thread);
  job j = { transpose_a, transpose_b, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c };
  pn_parallel(pn_ceil_div(m, PANEL), 1, panels, &j);
}
