/* sample.h: one axis sampled at another size: where element j of the result stands in x, and so what it takes from its neighbours
** there; and which elements of the result use element i. core/ops/resize3d.c has the rules. */
#ifndef PENUMBRA_KERNELS_SAMPLE_H
#define PENUMBRA_KERNELS_SAMPLE_H
#include <math.h>
#include "op.h"

typedef struct pn_sampling {
  double a, b; /* element j stands at a j + b; a >= 0, so that positions never fall */
  int64_t n_in, n_out;
  bool nearest, down; /* down: nearest takes floor(u), else floor(u + 1/2) */
} pn_sampling;

/* Element j is (1 - w) x[low] + w x[low + 1]. */
typedef struct pn_sample {
  int64_t low;
  double w;
} pn_sample;

#ifdef __cplusplus
extern "C" {
#endif
/* Of resize3d, along axis d of t, h, w. */
PN_API pn_sampling pn_sampling_of(const pn_call *call, int d, int64_t n_out);
#ifdef __cplusplus
}
#endif

PN_SHARED double pn_sample_line(double a, double j, double b) { /* the same bits wherever it is worked out */
#ifdef __CUDA_ARCH__
  return __dadd_rn(__dmul_rn(a, j), b);
#else
  return a * j + b;
#endif
}

PN_SHARED double pn_sample_place(const pn_sampling *s, int64_t j) {
  const double last = (double)(s->n_in - 1);
  double u = pn_sample_line(s->a, (double)j, s->b);
  if (s->nearest) u = floor(s->down ? u + 1e-9 : u + 0.5 + 1e-9); /* a hair against rounding just below a whole number */
  return u < 0 ? 0 : u > last ? last : u;
}

PN_SHARED pn_sample pn_sample_at(const pn_sampling *s, int64_t j) {
  const double u = pn_sample_place(s, j);
  pn_sample p;
  p.low = pn_min64((int64_t)u, pn_max64(s->n_in - 2, 0));
  p.w = u - (double)p.low;
  return p;
}

/* What the element sampled so takes of element i. */
PN_SHARED double pn_sample_share(pn_sample p, int64_t i) { return i == p.low ? 1 - p.w : i == p.low + 1 ? p.w : 0; }

/* The first j that stands above u (or at it, with `at`). */
PN_SHARED int64_t pn_sample_above(const pn_sampling *s, double u, bool at) {
  int64_t low = 0, high = s->n_out;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const double place = pn_sample_place(s, middle);
    if (place > u || (at && place == u)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/* The elements that take something of element i are first..last: those that stand less than 1 from it. */
PN_SHARED void pn_sample_users(const pn_sampling *s, int64_t i, int64_t *first, int64_t *last) {
  *first = pn_sample_above(s, (double)i - 1, false);
  *last = pn_sample_above(s, (double)i + 1, true) - 1;
}
#endif
