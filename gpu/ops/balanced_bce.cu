/* balanced_bce.cu: see core/ops/balanced_bce.c. */
#include "bce.h"

static int forward(pn_call *call) { return pn_gpu_bce_forward(call, true); }
PN_CUDA_KERNEL(balanced_bce, forward, pn_gpu_bce_backward)
