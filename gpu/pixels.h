/* pixels.h: tensors N,C,T,H,W on a device as pixels of channels that lie together, under any strides of the other axes. */
#ifndef PENUMBRA_GPU_PIXELS_H
#define PENUMBRA_GPU_PIXELS_H
#include "number.h"
#include "shared.h"

typedef struct pn_gpu_pixels {
  void *data;
  int dtype;
  bool even; /* sw from each pixel to the next, through all of them */
  int64_t n, c, t, h, w, sn, st, sh, sw;
} pn_gpu_pixels;

/* Of a tensor whose channels lie together; the strides of axes of size 1 become those of a dense tensor. */
static inline pn_gpu_pixels pn_gpu_pixels_of(const pn_tensor *x) {
  pn_gpu_pixels p = { pn_bytes_of(x), (int)x->dtype, false, x->shape[0], x->shape[1], x->shape[2],
                      x->shape[3],    x->shape[4],   0,     0,           0,           0 };
  p.sw = p.w > 1 ? x->stride[4] : p.c;
  p.sh = p.h > 1 ? x->stride[3] : p.w * p.sw;
  p.st = p.t > 1 ? x->stride[2] : p.h * p.sh;
  p.sn = p.n > 1 ? x->stride[0] : p.t * p.st;
  p.even = p.sh == p.w * p.sw && p.st == p.h * p.sh && p.sn == p.t * p.st;
  return p;
}

/* Does t lie so: channels together, and the axes in the order n,t,h,w without overlap? */
static inline bool pn_gpu_is_pixels(const pn_tensor *t) {
  if (t->n_dims != 5 || (t->shape[1] > 1 && t->stride[1] != 1)) return false;
  pn_gpu_pixels p = pn_gpu_pixels_of(t);
  return p.sw >= p.c && p.sh >= p.w * p.sw && p.st >= p.h * p.sh && p.sn >= p.t * p.st;
}

PN_SHARED int64_t pn_gpu_pixels_count(const pn_gpu_pixels *p) { return p->n * p->t * p->h * p->w; }
/* The element where pixel n,t,h,w begins, */
PN_SHARED int64_t pn_gpu_pixel(const pn_gpu_pixels *p, int64_t n, int64_t t, int64_t h, int64_t w) {
  return n * p->sn + t * p->st + h * p->sh + w * p->sw;
}
/* and pixel i in the order N,T,H,W. */
PN_SHARED int64_t pn_gpu_pixel_at(const pn_gpu_pixels *p, int64_t i) {
  if (p->even) return i * p->sw;
  return pn_gpu_pixel(p, i / p->w / p->h / p->t, i / p->w / p->h % p->t, i / p->w % p->h, i % p->w);
}
#endif
