/* mean.cu: see core/ops/mean.c. */
#include "launch.h"
#include "reduce.h"

static double share(const pn_call *call, const pn_tensor *y) {
  return (double)pn_tensor_count(y) / (double)pn_tensor_count(call->x[0]);
}

static int forward(pn_call *call) {
  pn_tensor *y;
  if (pn_reduce_keep(&y, call, call->y[0])) return -1;
  int rc = pn_gpu_sum_into(y, call->x[0], share(call, y), true);
  pn_tensor_release(y);
  return rc;
}

static int backward(pn_call *call) { return pn_gpu_spread(call, share(call, call->dy[0])); }

PN_CUDA_KERNEL(mean, forward, backward)
