/* max_pool3d.cu: see core/ops/max_pool3d.c. A thread has 16 bytes of channels of one pixel: of y forward; of dx backward, where it
** gathers, in the order of the windows, from those that it won.
**
** Bytes from and to memory, for an element of x of b bytes with q elements of y for it: b + q (b + 1) forward and, fresh, backward; in
** f32 that is 9 with stride 1 and 5.3 with stride 1,2,2. All else that windows read comes from the caches: a box of 8 groups x 4 x 4 x 2
** pixels has 144 pixels behind its 32, so that with 3x3x3 and stride 1 the L2 cache sees 4.5 reads an element and the L1 cache 27. */
#include "pooling.h"

typedef struct pool {
  pn_pooling at;
  uint8_t *winners; /* dense, N,T,H,W,C; forward: or NULL */
} pool;

enum { AT_ONCE = 3 }; /* pixels along w whose loads are under way together */

PN_DEVICE uint8_t *winners_at(const pool *p, int64_t n, int64_t c, int64_t t, int64_t h, int64_t w) {
  return p->winners + (((n * p->at.y.t + t) * p->at.y.h + h) * p->at.y.w + w) * p->at.y.c + c;
}

template <typename T, int V> PN_KERNEL void largest(pool p) {
  pn_place o;
  if (!pn_box_place(&p.at.boxes, &o)) return;
  const pn_span t = pn_span_seen(&p.at.window, 0, o.t, p.at.x.t), h = pn_span_seen(&p.at.window, 1, o.h, p.at.x.h),
                w = pn_span_seen(&p.at.window, 2, o.w, p.at.x.w);
  const int n_t = (int)t.n, n_h = (int)h.n, n_w = (int)w.n;
  const T *corner = pn_volume_at<T>(&p.at.x, o.n, o.c, t.at, h.at, w.at);
  real best[V];
  int winner[V];
  for (int c = 0; c < V; c++) {
    best[c] = (real)-INFINITY;
    winner[c] = (int)pn_window_place(&p.at.window, t.k, h.k, w.k);
  }
  for (int it = 0; it < n_t; it++) {
    for (int ih = 0; ih < n_h; ih++) {
      const T *row = corner + it * p.at.x.st + ih * p.at.x.sh;
      const int place = (int)pn_window_place(&p.at.window, t.k + it, h.k + ih, w.k);
      for (int first = 0; first < n_w; first += AT_ONCE) {
        real value[AT_ONCE][V];
        for (int k = 0; k < AT_ONCE; k++)
          if (first + k < n_w) pn_load<T, V>(value[k], row + (first + k) * p.at.x.sw);
        for (int k = 0; k < AT_ONCE; k++) {
          for (int c = 0; c < V && first + k < n_w; c++) {
            const real v = value[k][c];
            if (v > best[c] || v != v) best[c] = v, winner[c] = place + first + k;
          }
        }
      }
    }
  }
  pn_store<T, V>(pn_volume_at<T>(&p.at.y, o.n, o.c, o.t, o.h, o.w), best);
  if (!p.winners) return;
  pn_pack<uint8_t, V> bytes;
  for (int c = 0; c < V; c++) bytes.at[c] = (uint8_t)winner[c];
  pn_pack_put<uint8_t, V>(winners_at(&p, o.n, o.c, o.t, o.h, o.w), bytes);
}

template <typename T, int V> PN_KERNEL void largest_back(pool p) {
  pn_place i;
  if (!pn_box_place(&p.at.boxes, &i)) return;
  const pn_span t = pn_span_seeing(&p.at.window, 0, i.t, p.at.y.t), h = pn_span_seeing(&p.at.window, 1, i.h, p.at.y.h),
                w = pn_span_seeing(&p.at.window, 2, i.w, p.at.y.w);
  const int n_t = (int)t.n, n_h = (int)h.n, n_w = (int)w.n, step = (int)w.dk;
  T *dx = pn_volume_at<T>(&p.at.x, i.n, i.c, i.t, i.h, i.w);
  real sum[V];
  for (int c = 0; c < V; c++) sum[c] = 0;
  if (p.at.add) pn_load<T, V>(sum, dx);
  for (int it = 0; it < n_t; it++) {
    for (int ih = 0; ih < n_h; ih++) {
      const T *row = pn_volume_at<T>(&p.at.y, i.n, i.c, t.at + it, h.at + ih, w.at);
      const uint8_t *winners = winners_at(&p, i.n, i.c, t.at + it, h.at + ih, w.at);
      const int place = (int)pn_window_place(&p.at.window, t.k + it * t.dk, h.k + ih * h.dk, w.k);
      for (int first = 0; first < n_w; first += AT_ONCE) {
        pn_pack<uint8_t, V> winner[AT_ONCE];
        for (int k = 0; k < AT_ONCE; k++)
          if (first + k < n_w) winner[k] = pn_pack_get<uint8_t, V>(winners + (first + k) * p.at.y.c);
        for (int k = 0; k < AT_ONCE && first + k < n_w; k++) {
          bool mine[V], any = false;
          for (int c = 0; c < V; c++) any |= mine[c] = winner[k].at[c] == place + (first + k) * step;
          if (!any) continue;
          real dy[V];
          pn_load<T, V>(dy, row + (first + k) * p.at.y.sw);
          for (int c = 0; c < V; c++) sum[c] += mine[c] ? dy[c] : 0;
        }
      }
    }
  }
  pn_store<T, V>(dx, sum);
}

struct largest_kernels {
  template <typename T, int V> static auto of(bool back) { return back ? largest_back<T, V> : largest<T, V>; }
};

static int forward(pn_call *call) {
  pool p = { pn_pooling_of(call, call->x[0], call->y[0], false), NULL };
  if (call->recording) {
    pn_tensor *winners;
    if (pn_tensor_new(&winners, PN_U8, 5, call->y[0]->shape, PN_CHANNELS_LAST, pn_device_of(call->y[0]))) return -1;
    pn_call_save(call, 0, winners);
    p.winners = (uint8_t *)pn_bytes_of(winners);
  }
  return pn_pooling_run<largest_kernels>(call, p, false);
}

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  pool p = { pn_pooling_of(call, dx, call->dy[0], !fresh), (uint8_t *)pn_bytes_of(call->saved[0]) };
  return pn_pooling_run<largest_kernels>(call, p, true);
}

PN_CUDA_KERNEL(max_pool3d, forward, backward)
