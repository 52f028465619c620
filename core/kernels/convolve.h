/* convolve.h: 3-D convolution and its two adjoints on channels-last pixels. Transposed convolution is the same three, renamed.
**
** Weights are dense in FILTER memory: (O,I,kt,kh,kw) stored t,h,w,I/groups,O; O and I are the channels of y and x. */
#ifndef PENUMBRA_CONVOLVE_H
#define PENUMBRA_CONVOLVE_H
#include "../op.h"
#include "../shared.h"

typedef struct pn_geometry {
  int64_t kernel[3], stride[3], dilation[3], low[3]; /* low: padding before element 0 of x */
  int64_t groups;
} pn_geometry;

/* The coordinate of x that output o sees through tap k, along axis d; false when it lies in the padding. */
PN_SHARED bool pn_sees(const pn_geometry *g, int d, int64_t o, int64_t k, int64_t size, int64_t *i) {
  *i = o * g->stride[d] - g->low[d] + k * g->dilation[d];
  return *i >= 0 && *i < size;
}

/* The output whose tap k sees coordinate i of x; false when there is none. */
PN_SHARED bool pn_seen_by(const pn_geometry *g, int d, int64_t i, int64_t k, int64_t size, int64_t *o) {
  int64_t at = i + g->low[d] - k * g->dilation[d];
  *o = at / g->stride[d];
  return at >= 0 && at % g->stride[d] == 0 && *o < size;
}

/* What becomes of a sum before it is stored: + bias[channel], then 0 where negative. { 0 }: nothing. */
typedef struct pn_epilogue {
  const real *bias; /* NULL for none */
  bool relu;        /* NaN stays NaN */
} pn_epilogue;

/* y = x * w, then the epilogue; y is written, every element. */
PN_CHECKED int pn_convolve(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g);
/* dx (+)= the adjoint of pn_convolve in x, applied to dy; with add false dx is written, every element. bias (of x's channels) only then. */
PN_CHECKED int pn_convolve_data(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g);
/* dw += the adjoint in w. */
PN_CHECKED int pn_convolve_weight(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g);

/* The plain-C definitions that every variant is judged by. */
void pn_convolve_plain(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g);
void pn_convolve_data_plain(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g);
void pn_convolve_weight_plain(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g);

static inline real *pn_pixel(pn_pixels p, int64_t n, int64_t t, int64_t h, int64_t w) {
  return p.data + n * p.sn + t * p.st + h * p.sh + w * p.sw;
}

#endif
