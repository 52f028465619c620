/* mul.cu: see core/ops/mul.c. The gradient of an input that was broadcast is a sum of products. */
#include "elementwise.h"

PN_CUDA_BINARY_VALUE(mul)
PN_CUDA_BINARY_SLOPE(mul, slope_a)
PN_CUDA_BINARY_SLOPE(mul, slope_b)

static int back(pn_call *call, int i) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx;
  bool fresh;
  if (!gpu || pn_call_dx(call, i, &dx, &fresh)) return -1;
  if (!dx) return 0;
  if (!pn_same_shape(dx, call->dy[0])) return pn_gpu_sum_products_into(dx, call->dy[0], call->x[1 - i], 1, fresh);
  return i == 0 ? pn_cuda_slope<mul_slope_a>(call, gpu, dx, fresh) : pn_cuda_slope<mul_slope_b>(call, gpu, dx, fresh);
}

static int backward(pn_call *call) { return back(call, 0) || back(call, 1) ? -1 : 0; }

PN_CUDA_KERNEL(mul, forward, backward)
