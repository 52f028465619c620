/* where.cu: see core/ops/where.c. */
#include "elementwise.h"

struct where_value {
  enum { INPUTS = 3 };
  PN_DEVICE real of(const real *x, pn_unary) { return pn_where_value(x[0], x[1], x[2]); }
};
struct where_slope_a { /* of dy and c */
  enum { INPUTS = 2 };
  PN_DEVICE real of(const real *x, pn_unary) { return pn_where_slope_a(x[1], x[0]); }
};
struct where_slope_b {
  enum { INPUTS = 2 };
  PN_DEVICE real of(const real *x, pn_unary) { return pn_where_slope_b(x[1], x[0]); }
};

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  const pn_tensor *const operands[] = { call->y[0], call->x[0], call->x[1], call->x[2] };
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_over(&loop, 4, operands);
  return pn_loop_map<where_value>(gpu, &loop, pn_unary{ 0, 0, true });
}

static int backward(pn_call *call) {
  return pn_cuda_broadcast_back<where_slope_a>(call, 1) || pn_cuda_broadcast_back<where_slope_b>(call, 2) ? -1 : 0;
}
PN_CUDA_KERNEL(where, forward, backward)
