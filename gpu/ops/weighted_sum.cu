/* weighted_sum.cu: see core/ops/weighted_sum.c. Forward reads x once, a slice after the other; the gradient of x is a product with
** broadcasting, that of the weights a sum of products. */
#include "loop.h"
#include "reduce.h"

typedef struct slices {
  int64_t n, step, weight_step; /* of x along the axis */
  const void *weight;
  int weight_dtype;
} slices;

template <int V> PN_DEVICE void add_slices(const pn_loop *loop, int64_t i, const slices *s) {
  const int64_t stride = loop->stride[1][loop->n_dims - 1];
  int64_t at[PN_LOOP_OPERANDS];
  pn_raw<V> raw;
  real x[V], y[V];
  pn_loop_at(loop, i, at);
  for (int v = 0; v < V; v++) y[v] = 0;
  for (int64_t k = 0; k < s->n; k++) {
    const real w = pn_get(s->weight, k * s->weight_step, s->weight_dtype);
    pn_fetch<V>(&raw, loop->base[1], at[1] + k * s->step, loop->dtype[1], stride);
    pn_unpack<V>(x, &raw, loop->dtype[1], stride);
    for (int v = 0; v < V; v++) y[v] += w * x[v];
  }
  pn_write<V>(loop->base[0], at[0], loop->dtype[0], y);
}

template <int V> PN_KERNEL void sum_slices(pn_loop loop, slices s) {
  const int64_t n = loop.count / V;
  PN_EACH(i, n) add_slices<V>(&loop, i * V, &s);
  if constexpr (V > 1) PN_EACH(i, loop.count - n * V) add_slices<1>(&loop, n * V + i, &s);
}

/* t with an axis of size 1: its first slice. */
static pn_tensor slice_of(const pn_tensor *t, int64_t axis) {
  pn_tensor first = *t;
  first.shape[axis] = 1;
  return first;
}

/* (n) with the axes of x: n along the axis, 1 along the others. */
static pn_tensor along(const pn_tensor *weight, const pn_tensor *x, int64_t axis) {
  pn_tensor wide = *weight;
  wide.n_dims = x->n_dims;
  for (int d = 0; d < x->n_dims; d++) wide.shape[d] = 1, wide.stride[d] = 0;
  wide.shape[axis] = weight->shape[0];
  wide.stride[axis] = weight->stride[0];
  return wide;
}

static int forward(pn_call *call) {
  const pn_tensor *y = call->y[0], *x = call->x[0], *w = call->x[1];
  const int64_t axis = pn_arg_int(call, "axis");
  const pn_tensor first = slice_of(x, axis);
  const slices s = { x->shape[axis], x->stride[axis], w->stride[0], pn_bytes_of(w), (int)w->dtype };
  pn_gpu *gpu = pn_gpu_of(y);
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_start(&loop, y->n_dims, y->shape);
  pn_loop_add(&loop, y);
  pn_loop_add(&loop, &first);
  pn_loop_plan(&loop);
  if (!loop.count) return 0;
  int width = pn_loop_width(&loop);
  while (s.step % width) width = width == 8 ? 4 : 1;
  auto sum_slices_of = width == 8 ? sum_slices<8> : width == 4 ? sum_slices<4> : sum_slices<1>;
  return PN_LAUNCH(gpu, sum_slices_of, pn_gpu_blocks(gpu, pn_ceil_div(loop.count, width), 256), 256, loop, s);
}

struct times {
  enum { INPUTS = 2 };
  PN_DEVICE real of(const real *x, pn_unary) { return x[0] * x[1]; }
};

static int back_x(pn_call *call, int64_t axis) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx;
  bool fresh;
  pn_loop loop;
  if (!gpu || pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  const pn_tensor w = along(call->x[1], dx, axis);
  pn_loop_start(&loop, dx->n_dims, dx->shape);
  pn_loop_add(&loop, dx);
  pn_loop_add(&loop, call->dy[0]);
  pn_loop_add(&loop, &w);
  return pn_loop_map<times>(gpu, &loop, pn_unary{ 0, 0, fresh });
}

static int back_weight(pn_call *call, int64_t axis) {
  pn_tensor *dw;
  bool fresh;
  if (pn_call_dx(call, 1, &dw, &fresh)) return -1;
  if (!dw) return 0;
  pn_tensor wide = along(dw, call->x[0], axis);
  return pn_gpu_sum_products_into(&wide, call->x[0], call->dy[0], 1, fresh);
}

static int backward(pn_call *call) {
  const int64_t axis = pn_arg_int(call, "axis");
  return back_weight(call, axis) || back_x(call, axis) ? -1 : 0;
}

PN_CUDA_KERNEL(weighted_sum, forward, backward)
