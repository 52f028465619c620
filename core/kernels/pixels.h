/* pixels.h: tensors opened as pixels of channels, for reading or for writing, whatever their layout. */
#ifndef PENUMBRA_KERNELS_PIXELS_H
#define PENUMBRA_KERNELS_PIXELS_H
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

/* The pixels of t; *held keeps them alive and is t itself, or a dense copy where t's channels are not adjacent. */
PN_CHECKED int pn_pixels_open(pn_pixels *out, pn_tensor **held, pn_tensor *t);
/* After writing through pn_pixels_open(.., t): brings a copy's content back into t. Releases held either way. */
void pn_pixels_close(pn_tensor *held, pn_tensor *t, bool written);

static inline bool pn_pixels_even(const pn_pixels *p) { /* one stride from each pixel to the next? */
  return p->sh == p->w * p->sw && p->st == p->h * p->sh && (p->n == 1 || p->sn == p->t * p->st);
}
static inline int64_t pn_pixels_count(const pn_pixels *p) { return p->n * p->t * p->h * p->w; }
static inline real *pn_pixel_at(const pn_pixels *p, int64_t i) { /* pixel i in the order N,T,H,W */
  int64_t w = i % p->w, h = i / p->w % p->h, t = i / p->w / p->h % p->t, n = i / p->w / p->h / p->t;
  return p->data + n * p->sn + t * p->st + h * p->sh + w * p->sw;
}
/* How many pixels from i on, end excluded, lie sw apart. */
static inline int64_t pn_pixels_run(const pn_pixels *p, int64_t i, int64_t end) {
  return pn_pixels_even(p) ? end - i : pn_min64(end - i, p->w - i % p->w);
}

#ifdef __cplusplus
}
#endif
#endif
