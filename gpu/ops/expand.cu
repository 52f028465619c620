/* expand.cu: see core/ops/expand.c. A view; its gradient is a sum over the axes that grew. */
#include "launch.h"
#include "reduce.h"

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? pn_gpu_sum_into(dx, call->dy[0], 1, fresh) : 0;
}

PN_CUDA_KERNEL(expand, NULL, backward)
