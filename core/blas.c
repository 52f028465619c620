/* blas.c: matrix products on OpenBLAS, held to one thread a call; our own threads share the rows of the result. */
#include <pthread.h>
#include <cblas.h>
#include "blas.h"

enum { PANEL = 128, MOST = 512, GRAIN = 1 << 16 /* products of numbers that a thread should get at least */ };

/* Rows of one call. A call packs all of b anew, so they are many where there are many; by shape, never by the number of threads. */
static int64_t panel_of(int64_t m) { return pn_max64(PANEL, pn_min64(MOST, m / 4 / PANEL * PANEL)); }

typedef struct job {
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  real alpha, beta;
  const real *a, *b;
  real *c;
  const pn_axis *axes;
  int n_axes;
} job;

static void panels(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t panel = panel_of(j->m), n_panels = pn_ceil_div(j->m, panel);
  for (int64_t p = begin; p < end; p++) {
    const pn_axis at = pn_axes_at(j->axes, j->n_axes, p / n_panels);
    int64_t first = p % n_panels * panel, rows = pn_min64(panel, j->m - first);
    const real *a = j->a + at.from + (j->ta ? first : first * j->lda), *b = j->b + at.with;
    real *c = j->c + at.to + first * j->ldc;
    CBLAS_TRANSPOSE ta = j->ta ? CblasTrans : CblasNoTrans, tb = j->tb ? CblasTrans : CblasNoTrans;
#ifdef PN_F64_BUILD
    cblas_dgemm(CblasRowMajor, ta, tb, (blasint)rows, (blasint)j->n, (blasint)j->k, j->alpha, a, (blasint)j->lda, b,
                (blasint)j->ldb, j->beta, c, (blasint)j->ldc);
#else
    cblas_sgemm(CblasRowMajor, ta, tb, (blasint)rows, (blasint)j->n, (blasint)j->k, j->alpha, a, (blasint)j->lda, b,
                (blasint)j->ldb, j->beta, c, (blasint)j->ldc);
#endif
  }
}

static void one_thread(void) { openblas_set_num_threads(1); }

void pn_gemms(const pn_axis *axes, int n_axes, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha,
              const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c, int64_t ldc) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, one_thread);
  job j = { transpose_a, transpose_b, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c, axes, n_axes };
  int64_t units = pn_ceil_div(m, panel_of(m)), work = pn_max64(1, pn_min64(m, panel_of(m)) * n * k);
  for (int i = 0; i < n_axes; i++) units *= axes[i].size;
  pn_parallel(units, n_axes ? pn_max64(1, GRAIN / work) : 1, panels, &j);
}

void pn_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, real alpha, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc) {
  pn_gemms(NULL, 0, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
