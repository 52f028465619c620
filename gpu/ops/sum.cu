/* sum.cu: see core/ops/sum.c. */
#include "launch.h"
#include "reduce.h"

static int forward(pn_call *call) {
  pn_tensor *y;
  if (pn_reduce_keep(&y, call, call->y[0])) return -1;
  int rc = pn_gpu_sum_into(y, call->x[0], 1, true);
  pn_tensor_release(y);
  return rc;
}

static int backward(pn_call *call) { return pn_gpu_spread(call, 1); }

PN_CUDA_KERNEL(sum, forward, backward)
