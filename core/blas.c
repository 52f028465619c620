/* blas.c: matrix products on OpenBLAS, held to one thread a call; our own threads share the rows of the result. */
#include <pthread.h>
#include <cblas.h>
#include "blas.h"

enum { PANEL = 128, MOST = 512 };

/* Rows of one call. A call packs all of b anew, so they are many where there are many; by shape, never by the number of threads. */
static int64_t panel_of(int64_t m) { return pn_max64(PANEL, pn_min64(MOST, m / 4 / PANEL * PANEL)); }

typedef struct job {
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  real alpha, beta;
  const real *a, *b;
  real *c;
} job;

static void panels(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t panel = panel_of(j->m);
  for (int64_t p = begin; p < end; p++) {
    int64_t first = p * panel, rows = pn_min64(panel, j->m - first);
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
  pn_parallel(pn_ceil_div(m, panel_of(m)), 1, panels, &j);
}
