/* avg_pool3d.cu: see core/ops/avg_pool3d.c. As max_pool3d.cu, without winners; each window has its own share to give. */
#include "kernels/pool.h"
#include "volume.h"

typedef struct pool {
  pn_window window;
  pn_volume x, y; /* or dx and dy */
  bool count_pad, add;
  pn_boxes boxes;
} pool;

template <typename T, int V> PN_KERNEL void mean(pool p) {
  pn_place o;
  if (!pn_box_place(&p.boxes, &o)) return;
  const pn_span t = pn_span_seen(&p.window, 0, o.t, p.x.t), h = pn_span_seen(&p.window, 1, o.h, p.x.h),
                w = pn_span_seen(&p.window, 2, o.w, p.x.w);
  const int n_t = (int)t.n, n_h = (int)h.n, n_w = (int)w.n;
  const real share = pn_window_share(&p.window, p.count_pad, t.n, h.n, w.n);
  const T *corner = pn_volume_at<T>(&p.x, o.n, o.c, t.at, h.at, w.at);
  real sum[V] = { 0 };
  for (int it = 0; it < n_t; it++) {
    for (int ih = 0; ih < n_h; ih++) {
      const T *row = corner + it * p.x.st + ih * p.x.sh;
      for (int iw = 0; iw < n_w; iw++) {
        real value[V];
        pn_load<T, V>(value, row + iw * p.x.sw);
        for (int c = 0; c < V; c++) sum[c] += share * value[c];
      }
    }
  }
  pn_store<T, V>(pn_volume_at<T>(&p.y, o.n, o.c, o.t, o.h, o.w), sum);
}

template <typename T, int V> PN_KERNEL void mean_back(pool p) {
  pn_place i;
  if (!pn_box_place(&p.boxes, &i)) return;
  const pn_span t = pn_span_seeing(&p.window, 0, i.t, p.y.t), h = pn_span_seeing(&p.window, 1, i.h, p.y.h),
                w = pn_span_seeing(&p.window, 2, i.w, p.y.w);
  const int n_t = (int)t.n, n_h = (int)h.n, n_w = (int)w.n;
  T *dx = pn_volume_at<T>(&p.x, i.n, i.c, i.t, i.h, i.w);
  real sum[V] = { 0 };
  if (p.add) pn_load<T, V>(sum, dx);
  for (int it = 0; it < n_t; it++) {
    const int64_t seen_t = pn_span_seen(&p.window, 0, t.at + it, p.x.t).n;
    for (int ih = 0; ih < n_h; ih++) {
      const int64_t seen_h = pn_span_seen(&p.window, 1, h.at + ih, p.x.h).n;
      const T *row = pn_volume_at<T>(&p.y, i.n, i.c, t.at + it, h.at + ih, w.at);
      for (int iw = 0; iw < n_w; iw++) {
        const int64_t seen_w = pn_span_seen(&p.window, 2, w.at + iw, p.x.w).n;
        const real share = pn_window_share(&p.window, p.count_pad, seen_t, seen_h, seen_w);
        real dy[V];
        pn_load<T, V>(dy, row + iw * p.y.sw);
        for (int c = 0; c < V; c++) sum[c] += share * dy[c];
      }
    }
  }
  pn_store<T, V>(dx, sum);
}

/* Over the pixels of y, or of dx. */
static int run(pn_call *call, pool *p, bool back) {
  const pn_volume *over = back ? &p->x : &p->y;
  const bool packs = pn_volume_packs(&p->x) && pn_volume_packs(&p->y);
  bool overlap[3];
  pn_gpu *gpu = pn_gpu_of(call->x[0]);
  if (!gpu) return -1;
  if (!pn_volume_count(over)) return 0;
  for (int d = 0; d < 3; d++) overlap[d] = p->window.kernel[d] > p->window.stride[d];
  PN_BY_TYPE(p->x.dtype, return pn_need_real(call, 0), {
    enum { V = pn_per_pack<T>::COUNT };
    auto kernel = back ? (packs ? mean_back<T, V> : mean_back<T, 1>) : packs ? mean<T, V> : mean<T, 1>;
    p->boxes = pn_boxes_of(over, packs ? V : 1, overlap);
    return PN_LAUNCH(gpu, kernel, p->boxes.count, p->boxes.threads, *p);
  });
}

static bool count_pad(const pn_call *call) { return pn_arg_int(call, "count_include_pad") != 0; }

static int forward(pn_call *call) {
  pool p = { pn_window_of(call), pn_volume_of(call->x[0]), pn_volume_of(call->y[0]), count_pad(call), false, {} };
  return run(call, &p, false);
}

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  pool p = { pn_window_of(call), pn_volume_of(dx), pn_volume_of(call->dy[0]), count_pad(call), !fresh, {} };
  return run(call, &p, true);
}

PN_CUDA_KERNEL(avg_pool3d, forward, backward)
