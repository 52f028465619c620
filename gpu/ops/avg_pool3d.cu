/* avg_pool3d.cu: see core/ops/avg_pool3d.c. As max_pool3d.cu, without winners; each window has its own share to give. */
#include "pooling.h"

typedef struct pool {
  pn_pooling at;
  bool count_pad;
} pool;

template <typename T, int V> PN_KERNEL void mean(pool p) {
  pn_place o;
  if (!pn_box_place(&p.at.boxes, &o)) return;
  const pn_span t = pn_span_seen(&p.at.window, 0, o.t, p.at.x.t), h = pn_span_seen(&p.at.window, 1, o.h, p.at.x.h),
                w = pn_span_seen(&p.at.window, 2, o.w, p.at.x.w);
  const int n_t = (int)t.n, n_h = (int)h.n, n_w = (int)w.n;
  const real share = pn_window_share(&p.at.window, p.count_pad, t.n, h.n, w.n);
  const T *corner = pn_volume_at<T>(&p.at.x, o.n, o.c, t.at, h.at, w.at);
  real sum[V] = { 0 };
  for (int it = 0; it < n_t; it++) {
    for (int ih = 0; ih < n_h; ih++) {
      const T *row = corner + it * p.at.x.st + ih * p.at.x.sh;
      for (int iw = 0; iw < n_w; iw++) {
        real value[V];
        pn_load<T, V>(value, row + iw * p.at.x.sw);
        for (int c = 0; c < V; c++) sum[c] += share * value[c];
      }
    }
  }
  pn_store<T, V>(pn_volume_at<T>(&p.at.y, o.n, o.c, o.t, o.h, o.w), sum);
}

template <typename T, int V> PN_KERNEL void mean_back(pool p) {
  pn_place i;
  if (!pn_box_place(&p.at.boxes, &i)) return;
  const pn_span t = pn_span_seeing(&p.at.window, 0, i.t, p.at.y.t), h = pn_span_seeing(&p.at.window, 1, i.h, p.at.y.h),
                w = pn_span_seeing(&p.at.window, 2, i.w, p.at.y.w);
  const int n_t = (int)t.n, n_h = (int)h.n, n_w = (int)w.n;
  T *dx = pn_volume_at<T>(&p.at.x, i.n, i.c, i.t, i.h, i.w);
  real sum[V] = { 0 };
  if (p.at.add) pn_load<T, V>(sum, dx);
  for (int it = 0; it < n_t; it++) {
    const int64_t seen_t = pn_span_seen(&p.at.window, 0, t.at + it, p.at.x.t).n;
    for (int ih = 0; ih < n_h; ih++) {
      const int64_t seen_h = pn_span_seen(&p.at.window, 1, h.at + ih, p.at.x.h).n;
      const T *row = pn_volume_at<T>(&p.at.y, i.n, i.c, t.at + it, h.at + ih, w.at);
      for (int iw = 0; iw < n_w; iw++) {
        const int64_t seen_w = pn_span_seen(&p.at.window, 2, w.at + iw, p.at.x.w).n;
        const real share = pn_window_share(&p.at.window, p.count_pad, seen_t, seen_h, seen_w);
        real dy[V];
        pn_load<T, V>(dy, row + iw * p.at.y.sw);
        for (int c = 0; c < V; c++) sum[c] += share * dy[c];
      }
    }
  }
  pn_store<T, V>(dx, sum);
}

struct mean_kernels {
  template <typename T, int V> static auto of(bool back) { return back ? mean_back<T, V> : mean<T, V>; }
};

static bool count_pad(const pn_call *call) { return pn_arg_int(call, "count_include_pad") != 0; }

static int forward(pn_call *call) {
  return pn_pooling_run<mean_kernels>(call, pool{ pn_pooling_of(call, call->x[0], call->y[0], false), count_pad(call) }, false);
}

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  return pn_pooling_run<mean_kernels>(call, pool{ pn_pooling_of(call, dx, call->dy[0], !fresh), count_pad(call) }, true);
}

PN_CUDA_KERNEL(avg_pool3d, forward, backward)
