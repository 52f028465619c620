/* bce_with_logits.cu: see core/ops/bce_with_logits.c. */
#include "bce.h"

static int forward(pn_call *call) { return pn_gpu_bce_forward(call, false); }
PN_CUDA_KERNEL(bce_with_logits, forward, pn_gpu_bce_backward)
