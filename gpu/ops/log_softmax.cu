/* log_softmax.cu: see core/ops/log_softmax.c. */
#include "launch.h"
#include "softmax.h"

static int forward(pn_call *call) { return pn_gpu_softmax_forward(call, true); }
static int backward(pn_call *call) { return pn_gpu_softmax_backward(call, true); }

PN_CUDA_KERNEL(log_softmax, forward, backward)
