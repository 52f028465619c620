/* geometry.h: how the pixels of the two sides of a convolution see each other, and what becomes of a sum. */
#ifndef PENUMBRA_KERNELS_GEOMETRY_H
#define PENUMBRA_KERNELS_GEOMETRY_H
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

static inline real *pn_pixel(pn_pixels p, int64_t n, int64_t t, int64_t h, int64_t w) {
  return p.data + n * p.sn + t * p.st + h * p.sh + w * p.sw;
}

#endif
