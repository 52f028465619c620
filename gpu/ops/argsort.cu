/* argsort.cu: see core/ops/argsort.c and gpu/sort.cu. */
#include "launch.h"
#include "sort.h"

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  return gpu ? pn_gpu_sort(gpu, call->y[0], call->x[0], (int)pn_arg_int(call, "axis"), pn_arg_int(call, "descending") != 0) : -1;
}

PN_CUDA_KERNEL(argsort, forward, NULL)
