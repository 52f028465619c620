/* resize3d.cu: see core/ops/resize3d.c. A thread an element, which works out for itself where it stands (kernels/sample.h).
**
** Forward takes the up to eight elements around, as the CPU does: along t and h, then along w. Backward, the adjoint, goes axis by axis,
** w, h, t: each element gathers, in order, from those that took something of it, and what lies between is real, in scratch. So 16 x 224
** x 224 becomes 16 x 224 x 14, 16 x 14 x 14 and 8 x 14 x 14 with 32, 32 and 4 terms an element, where the sum over all three at once
** had 4096 terms for each of 1568 threads. Bytes: forward x and y, backward dy, dx and twice what lies between. */
#include "kernels/sample.h"
#include "volume.h"

typedef struct resize {
  pn_sampling along[3];
  pn_volume x, y;
  pn_boxes boxes; /* over y */
} resize;

PN_KERNEL void sample(resize r) {
  pn_place o;
  if (!pn_box_place(&r.boxes, &o)) return;
  const pn_sample t = pn_sample_at(&r.along[0], o.t), h = pn_sample_at(&r.along[1], o.h), w = pn_sample_at(&r.along[2], o.w);
  real y = 0;
  for (int k = 0; k < 2; k++) {
    const double share_w = k ? w.w : 1 - w.w;
    real sum = 0;
    if (share_w == 0) continue;
    for (int i = 0; i < 4; i++) { /* what has no share is not looked at: it may lie outside, or be infinite */
      const double share = (i / 2 ? t.w : 1 - t.w) * (i % 2 ? h.w : 1 - h.w);
      if (share == 0) continue;
      const int64_t at = o.n * r.x.sn + o.c * r.x.sc + (t.low + i / 2) * r.x.st + (h.low + i % 2) * r.x.sh + (w.low + k) * r.x.sw;
      sum += (real)share * pn_get(r.x.data, at, r.x.dtype);
    }
    y += (real)share_w * sum;
  }
  pn_put(r.y.data, o.n * r.y.sn + o.c * r.y.sc + o.t * r.y.st + o.h * r.y.sh + o.w * r.y.sw, r.y.dtype, y);
}

typedef struct gather {
  pn_sampling along;
  int axis; /* 0, 1, 2: t, h, w */
  pn_volume to, from;
  bool add;
  pn_boxes boxes; /* over `to` */
} gather;

PN_KERNEL void sample_back(gather g) {
  pn_place i;
  if (!pn_box_place(&g.boxes, &i)) return;
  const int at = g.axis == 0 ? i.t : g.axis == 1 ? i.h : i.w;
  const int64_t step = g.axis == 0 ? g.from.st : g.axis == 1 ? g.from.sh : g.from.sw;
  const int64_t to = i.n * g.to.sn + i.c * g.to.sc + i.t * g.to.st + i.h * g.to.sh + i.w * g.to.sw;
  const int64_t base = i.n * g.from.sn + i.c * g.from.sc + i.t * g.from.st + i.h * g.from.sh + i.w * g.from.sw - at * step;
  int64_t first, last;
  pn_sample_users(&g.along, at, &first, &last);
  real sum = g.add ? pn_get(g.to.data, to, g.to.dtype) : 0;
  for (int64_t j = first; j <= last; j++)
    sum += (real)pn_sample_share(pn_sample_at(&g.along, j), at) * pn_get(g.from.data, base + j * step, g.from.dtype);
  pn_put(g.to.data, to, g.to.dtype, sum);
}

static const bool overlap[3] = { true, true, true };

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  resize r;
  if (!gpu) return -1;
  r.x = pn_volume_of(call->x[0]);
  r.y = pn_volume_of(call->y[0]);
  if (!pn_volume_count(&r.y)) return 0;
  for (int d = 0; d < 3; d++) r.along[d] = pn_sampling_of(call, d, call->y[0]->shape[2 + d]);
  r.boxes = pn_boxes_of(&r.y, 1, overlap);
  return PN_LAUNCH(gpu, sample, r.boxes.count, r.boxes.threads, r);
}

/* v with n elements along an axis, dense, of reals. */
static pn_volume shorter(pn_volume v, int axis, int64_t n) {
  (axis == 0 ? v.t : axis == 1 ? v.h : v.w) = n;
  v.data = NULL;
  v.dtype = PN_REAL_DTYPE;
  v.sc = 1, v.sw = v.c, v.sh = v.w * v.sw, v.st = v.h * v.sh, v.sn = v.t * v.st;
  return v;
}

static int backward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx;
  bool fresh;
  void *scratch[3] = { NULL, NULL, NULL };
  if (!gpu || pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx || !pn_tensor_count(dx)) return 0;
  pn_volume from = pn_volume_of(call->dy[0]);
  int rc = 0;
  for (int d = 2; d >= 0 && !rc; d--) {
    gather g;
    g.along = pn_sampling_of(call, d, call->dy[0]->shape[2 + d]);
    g.axis = d;
    g.from = from;
    g.to = d ? shorter(from, d, dx->shape[2 + d]) : pn_volume_of(dx);
    g.add = !d && !fresh;
    if (d && g.along.n_in == g.along.n_out && g.along.a == 1 && g.along.b == 0) continue; /* as it was */
    if (d) g.to.data = (char *)(scratch[d] = pn_gpu_scratch(gpu, (size_t)pn_volume_count(&g.to) * sizeof(real)));
    g.boxes = pn_boxes_of(&g.to, 1, overlap);
    rc = !g.to.data ? -1 : PN_LAUNCH(gpu, sample_back, g.boxes.count, g.boxes.threads, g);
    from = g.to;
  }
  for (int d = 1; d < 3; d++) pn_gpu_scratch_free(gpu, scratch[d]);
  return rc;
}

PN_CUDA_KERNEL(resize3d, forward, backward)
