/* window.h: windows over T, H, W, such as pooling has: which inputs an output sees, and which outputs see an input. */
#ifndef PENUMBRA_KERNELS_WINDOW_H
#define PENUMBRA_KERNELS_WINDOW_H
#include "internal.h"

typedef struct pn_window {
  int64_t kernel[3], stride[3], low[3];
  int shift
      [3]; /* of a stride that is a power of two, as most are; -1 of others: divisions of 64 bits cost a device dozens of steps */
} pn_window;

static inline void pn_window_set(pn_window *w, int d, int64_t kernel, int64_t stride, int64_t low) {
  w->kernel[d] = kernel, w->stride[d] = stride, w->low[d] = low;
  w->shift[d] = -1;
  for (int k = 0; k < 31; k++)
    if (stride == (int64_t)1 << k) w->shift[d] = k;
}
PN_SHARED int64_t pn_window_steps(const pn_window *w, int d, int64_t n) { /* how many strides n >= 0 holds */
  return w->shift[d] < 0 ? n / w->stride[d] : n >> w->shift[d];
}

/* Along one axis: the n neighbours of a pixel, the first at `at`; neighbour i has place k + i * dk in the window. */
typedef struct pn_span {
  int64_t at, n, k, dk;
} pn_span;

PN_SHARED pn_span pn_span_seen(const pn_window *w, int d, int64_t o, int64_t n_in) { /* inputs that output o sees; at least one */
  int64_t first = o * w->stride[d] - w->low[d], k = first < 0 ? -first : 0;
  pn_span s = { first + k, pn_min64(w->kernel[d], n_in - first) - k, k, 1 };
  return s;
}

PN_SHARED pn_span pn_span_seeing(const pn_window *w, int d, int64_t i, int64_t n_out) { /* outputs that see input i; perhaps none */
  int64_t reach = i + w->low[d], s = w->stride[d];
  int64_t first = reach < w->kernel[d] ? 0 : pn_window_steps(w, d, reach - w->kernel[d]) + 1;
  int64_t last = pn_min64(pn_window_steps(w, d, reach), n_out - 1);
  pn_span span = { first, pn_max64(0, last - first + 1), reach - first * s, -s };
  return span;
}

/* What a window's place (t,h,w) is called: its number in the order t, h, w. */
PN_SHARED int64_t pn_window_place(const pn_window *w, int64_t t, int64_t h, int64_t x) {
  return (t * w->kernel[1] + h) * w->kernel[2] + x;
}
/* What each element of a window that holds t x h x w of them counts in its mean; with count_pad as if it were full. */
PN_SHARED real pn_window_share(const pn_window *w, bool count_pad, int64_t t, int64_t h, int64_t x) {
  return 1 / (real)(count_pad ? w->kernel[0] * w->kernel[1] * w->kernel[2] : t * h * x);
}
#endif
