/* max.cu: see core/ops/max.c. */
#include "launch.h"
#include "reduce.h"

static int forward(pn_call *call) {
  pn_tensor *winners = NULL, *y = call->y[0];
  if (call->recording && pn_tensor_new(&winners, PN_I64, y->n_dims, y->shape, PN_ROWS, pn_device_of(y))) return -1;
  if (winners) pn_call_save(call, 0, winners);
  return pn_gpu_pick_largest(call, y, winners, 0);
}

static int backward(pn_call *call) { return pn_gpu_pick_backward(call, call->saved[0]); }

PN_CUDA_KERNEL(max, forward, backward)
