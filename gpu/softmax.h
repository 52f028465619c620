/* softmax.h: softmax and its logarithm along one axis, as core/kernels/softmax.h. */
#ifndef PENUMBRA_GPU_SOFTMAX_H
#define PENUMBRA_GPU_SOFTMAX_H
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

PN_CHECKED int pn_gpu_softmax_forward(pn_call *call, bool logarithm);
PN_CHECKED int pn_gpu_softmax_backward(pn_call *call, bool logarithm);

#ifdef __cplusplus
}
#endif
#endif
