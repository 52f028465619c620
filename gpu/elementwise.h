/* elementwise.h: the operations of one and of two inputs, element by element, from the formulas they share with the CPU
** (core/kernels/formulas.h). PN_CUDA_UNARY(relu) and PN_CUDA_BINARY(mul) are all that gpu/ops/NAME.cu holds. */
#ifndef PENUMBRA_GPU_ELEMENTWISE_H
#define PENUMBRA_GPU_ELEMENTWISE_H
#include "loop.h"
#include "reduce.h"

/* loop over t[0] (of the shape of all, or that which they broadcast to), t[1], ... */
static inline void pn_loop_over(pn_loop *loop, int n, const pn_tensor *const *t) {
  pn_loop_start(loop, t[0]->n_dims, t[0]->shape);
  for (int i = 0; i < n; i++) pn_loop_add(loop, t[i]);
}

/* ---- one input ------------------------------------------------------------------------------------------------------------------ */

template <typename Value> static int pn_cuda_unary_forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  const pn_tensor *const operands[] = { call->y[0], call->x[0] };
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_over(&loop, 2, operands);
  return pn_loop_map<Value>(gpu, &loop, pn_unary_numbers(call));
}

template <typename Slope> static int pn_cuda_unary_backward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_unary k = pn_unary_numbers(call);
  pn_tensor *dx;
  pn_loop loop;
  if (!gpu || pn_call_dx(call, 0, &dx, &k.fresh)) return -1;
  if (!dx) return 0;
  const pn_tensor *const operands[] = { dx, call->dy[0], call->x[0] };
  pn_loop_over(&loop, 3, operands);
  return pn_loop_map<Slope>(gpu, &loop, k);
}

#define PN_CUDA_UNARY(name)                                                                                                        \
  struct name##_value {                                                                                                            \
    enum { INPUTS = 1 };                                                                                                           \
    PN_DEVICE real of(const real *x, pn_unary k) { return pn_##name##_value(x[0], k.a, k.b); }                                     \
  };                                                                                                                               \
  struct name##_slope {                                                                                                            \
    enum { INPUTS = 2 };                                                                                                           \
    PN_DEVICE real of(const real *x, pn_unary k) { return pn_##name##_slope(x[1], x[0], k.a, k.b); }                               \
  };                                                                                                                               \
  static int forward(pn_call *call) { return pn_cuda_unary_forward<name##_value>(call); }                                          \
  static int backward(pn_call *call) { return pn_cuda_unary_backward<name##_slope>(call); }                                        \
  PN_CUDA_KERNEL(name, forward, backward)

/* ---- two inputs, broadcast to each other ------------------------------------------------------------------------------------------ */

template <typename Value> static int pn_cuda_binary_forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  const pn_tensor *const operands[] = { call->y[0], call->x[0], call->x[1] };
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_over(&loop, 3, operands);
  return pn_loop_map<Value>(gpu, &loop, pn_unary{ 0, 0, true });
}

template <typename Slope> static int pn_cuda_slope(pn_call *call, pn_gpu *gpu, pn_tensor *to, bool fresh) {
  const pn_tensor *const operands[] = { to, call->dy[0], call->x[0], call->x[1] };
  pn_loop loop;
  pn_loop_over(&loop, 4, operands);
  return pn_loop_map<Slope>(gpu, &loop, pn_unary{ 0, 0, fresh });
}

/* Backward for input i, from dy, x[0] and x[1]. An input that was broadcast gathers the gradients of all its uses, in real. */
template <typename Slope> static int pn_cuda_broadcast_back(pn_call *call, int i) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx, *full;
  bool fresh;
  if (!gpu || pn_call_dx(call, i, &dx, &fresh)) return -1;
  if (!dx) return 0;
  const pn_tensor *dy = call->dy[0];
  if (pn_same_shape(dx, dy)) return pn_cuda_slope<Slope>(call, gpu, dx, fresh);
  if (pn_tensor_new(&full, PN_REAL_DTYPE, dy->n_dims, dy->shape, dy->n_dims == 5 ? PN_CHANNELS_LAST : PN_ROWS, pn_device_of(dy)))
    return -1;
  int rc = pn_cuda_slope<Slope>(call, gpu, full, true);
  rc = rc ? rc : pn_gpu_sum_into(dx, full, 1, fresh);
  pn_tensor_release(full);
  return rc;
}

#define PN_CUDA_BINARY_VALUE(name)                                                                                                 \
  struct name##_value {                                                                                                            \
    enum { INPUTS = 2 };                                                                                                           \
    PN_DEVICE real of(const real *x, pn_unary) { return pn_##name##_value(x[0], x[1]); }                                           \
  };                                                                                                                               \
  static int forward(pn_call *call) { return pn_cuda_binary_forward<name##_value>(call); }
#define PN_CUDA_BINARY_SLOPE(name, side)                                                                                           \
  struct name##_##side {                                                                                                           \
    enum { INPUTS = 3 };                                                                                                           \
    PN_DEVICE real of(const real *x, pn_unary) { return pn_##name##_##side(x[1], x[2], x[0]); }                                    \
  };

#define PN_CUDA_BINARY(name)                                                                                                       \
  PN_CUDA_BINARY_VALUE(name)                                                                                                       \
  PN_CUDA_BINARY_SLOPE(name, slope_a)                                                                                              \
  PN_CUDA_BINARY_SLOPE(name, slope_b)                                                                                              \
  static int backward(pn_call *call) {                                                                                             \
    return pn_cuda_broadcast_back<name##_slope_a>(call, 0) || pn_cuda_broadcast_back<name##_slope_b>(call, 1) ? -1 : 0;            \
  }                                                                                                                                \
  PN_CUDA_KERNEL(name, forward, backward)

/* ---- comparisons -------------------------------------------------------------------------------------------------------------- */

template <typename Compare> PN_KERNEL void compare_integers(pn_loop loop) {
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&loop, i, at);
    const int64_t a = pn_get_integer(loop.base[1], at[1], loop.dtype[1]), b = pn_get_integer(loop.base[2], at[2], loop.dtype[2]);
    pn_loop_put(&loop, 0, at, Compare::of_integers(a, b));
  }
}

template <typename Compare> static int pn_cuda_comparison(pn_call *call) {
  if (!pn_compared_of(call).integers) return pn_cuda_binary_forward<Compare>(call);
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  const pn_tensor *const operands[] = { call->y[0], call->x[0], call->x[1] };
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_over(&loop, 3, operands);
  pn_loop_plan(&loop);
  if (!loop.count) return 0;
  auto run = compare_integers<Compare>;
  return PN_LAUNCH(gpu, run, pn_gpu_blocks(gpu, loop.count, 256), 256, loop);
}

#define PN_CUDA_COMPARISON(name)                                                                                                   \
  struct name##_value {                                                                                                            \
    enum { INPUTS = 2 };                                                                                                           \
    PN_DEVICE real of(const real *x, pn_unary) { return pn_##name##_value(x[0], x[1]); }                                           \
    PN_DEVICE real of_integers(int64_t a, int64_t b) { return pn_##name##_of_integers(a, b); }                                     \
  };                                                                                                                               \
  static int forward(pn_call *call) { return pn_cuda_comparison<name##_value>(call); }                                             \
  PN_CUDA_KERNEL(name, forward, NULL)

/* ---- sums and differences -------------------------------------------------------------------------------------------------------- */

/* a + b and a - b: where shapes allow, the gradient is dy itself; times `sign` for b. */
static inline int pn_cuda_gather(pn_call *call, int i, double factor) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, i, &dx, &fresh)) return -1;
  return dx ? pn_gpu_sum_into(dx, call->dy[0], factor, fresh) : 0;
}

#define PN_CUDA_SUM(name, sign)                                                                                                    \
  PN_CUDA_BINARY_VALUE(name)                                                                                                       \
  static int backward(pn_call *call) {                                                                                             \
    if (pn_call_wants(call, 1) && pn_cuda_gather(call, 1, sign)) return -1;                                                        \
    if (!pn_call_wants(call, 0)) return 0;                                                                                         \
    return pn_same_shape(call->x[0], call->dy[0]) ? pn_call_dx_give(call, 0, call->dy[0]) : pn_cuda_gather(call, 0, 1);            \
  }                                                                                                                                \
  PN_CUDA_KERNEL(name, forward, backward)
#endif
