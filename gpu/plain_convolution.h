/* plain_convolution.h: what convolution is on a device, a thread a result, as core/kernels/convolve_plain.c says it: the definition
** that cuDNN is compared with, and what runs where cuDNN has nothing. Filters are O,t,h,w,I/groups. */
#ifndef PENUMBRA_GPU_PLAIN_CONVOLUTION_H
#define PENUMBRA_GPU_PLAIN_CONVOLUTION_H
#include "kernels/geometry.h"
#include "pixels.h"

typedef struct pn_plain_place {
  int64_t n, t, h, w, c;
} pn_plain_place;

PN_DEVICE pn_plain_place pn_plain_at(const pn_gpu_pixels *p, int64_t i) { /* channels fastest, then w,h,t,n */
  pn_plain_place at;
  at.c = i % p->c, i /= p->c;
  at.w = i % p->w, i /= p->w;
  at.h = i % p->h, i /= p->h;
  at.t = i % p->t, at.n = i / p->t;
  return at;
}

/* y = relu(x * w + bias) */
template <typename T>
PN_KERNEL void pn_plain_forward(pn_gpu_pixels y, pn_gpu_pixels x, const T *w, const real *bias, int64_t bias_stride, bool relu,
                                pn_geometry g) {
  int64_t inner = x.c / g.groups, outer = y.c / g.groups, it, ih, iw;
  PN_EACH(i, pn_gpu_pixels_count(&y) * y.c) {
    pn_plain_place at = pn_plain_at(&y, i);
    real sum = bias ? bias[at.c * bias_stride] : 0;
    const T *f = w + at.c * g.kernel[0] * g.kernel[1] * g.kernel[2] * inner;
    for (int64_t a = 0; a < g.kernel[0]; a++)
      for (int64_t b = 0; b < g.kernel[1]; b++)
        for (int64_t c = 0; c < g.kernel[2]; c++, f += inner) {
          if (!pn_sees(&g, 0, at.t, a, x.t, &it) || !pn_sees(&g, 1, at.h, b, x.h, &ih) || !pn_sees(&g, 2, at.w, c, x.w, &iw))
            continue;
          const T *from = (const T *)x.data + pn_gpu_pixel(&x, at.n, it, ih, iw) + at.c / outer * inner;
          for (int64_t k = 0; k < inner; k++) sum += pn_from(from[k]) * pn_from(f[k]);
        }
    pn_to((T *)y.data + pn_gpu_pixel(&y, at.n, at.t, at.h, at.w) + at.c, relu && sum < 0 ? (real)0 : sum);
  }
}

/* x = the adjoint in x, of y, plus bias */
template <typename T>
PN_KERNEL void pn_plain_data(pn_gpu_pixels x, pn_gpu_pixels y, const T *w, const real *bias, int64_t bias_stride, pn_geometry g) {
  int64_t inner = x.c / g.groups, outer = y.c / g.groups, taps = g.kernel[0] * g.kernel[1] * g.kernel[2], ot, oh, ow;
  PN_EACH(i, pn_gpu_pixels_count(&x) * x.c) {
    pn_plain_place at = pn_plain_at(&x, i);
    real sum = bias ? bias[at.c * bias_stride] : 0;
    int64_t first = at.c / inner * outer;
    for (int64_t a = 0; a < g.kernel[0]; a++)
      for (int64_t b = 0; b < g.kernel[1]; b++)
        for (int64_t c = 0; c < g.kernel[2]; c++) {
          if (!pn_seen_by(&g, 0, at.t, a, y.t, &ot) || !pn_seen_by(&g, 1, at.h, b, y.h, &oh) ||
              !pn_seen_by(&g, 2, at.w, c, y.w, &ow))
            continue;
          const T *from = (const T *)y.data + pn_gpu_pixel(&y, at.n, ot, oh, ow) + first;
          const T *f = w + ((first * taps + (a * g.kernel[1] + b) * g.kernel[2] + c) * inner + at.c % inner);
          for (int64_t k = 0; k < outer; k++) sum += pn_from(from[k]) * pn_from(f[k * taps * inner]);
        }
    pn_to((T *)x.data + pn_gpu_pixel(&x, at.n, at.t, at.h, at.w) + at.c, sum);
  }
}

/* dw = the adjoint in w, of y */
template <typename T> PN_KERNEL void pn_plain_weight(T *dw, pn_gpu_pixels x, pn_gpu_pixels y, pn_geometry g) {
  int64_t inner = x.c / g.groups, outer = y.c / g.groups, taps = g.kernel[0] * g.kernel[1] * g.kernel[2], it, ih, iw;
  PN_EACH(i, y.c * taps * inner) {
    int64_t k = i % inner, tap = i / inner % taps, o = i / inner / taps;
    int64_t c = tap % g.kernel[2], b = tap / g.kernel[2] % g.kernel[1], a = tap / g.kernel[2] / g.kernel[1];
    double sum = 0;
    for (int64_t n = 0; n < y.n; n++)
      for (int64_t t = 0; t < y.t; t++)
        for (int64_t h = 0; h < y.h && pn_sees(&g, 0, t, a, x.t, &it); h++)
          for (int64_t w = 0; w < y.w && pn_sees(&g, 1, h, b, x.h, &ih); w++) {
            if (!pn_sees(&g, 2, w, c, x.w, &iw)) continue;
            sum += (double)pn_from(((const T *)x.data)[pn_gpu_pixel(&x, n, it, ih, iw) + o / outer * inner + k]) *
                   (double)pn_from(((const T *)y.data)[pn_gpu_pixel(&y, n, t, h, w) + o]);
          }
    pn_to(dw + i, (real)sum);
  }
}
#endif
