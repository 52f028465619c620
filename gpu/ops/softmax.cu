/* softmax.cu: see core/ops/softmax.c. */
#include "launch.h"
#include "softmax.h"

static int forward(pn_call *call) { return pn_gpu_softmax_forward(call, false); }
static int backward(pn_call *call) { return pn_gpu_softmax_backward(call, false); }

PN_CUDA_KERNEL(softmax, forward, backward)
