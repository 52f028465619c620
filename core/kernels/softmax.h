/* softmax.h: softmax and its logarithm along one axis. */
#ifndef PENUMBRA_KERNELS_SOFTMAX_H
#define PENUMBRA_KERNELS_SOFTMAX_H
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

PN_CHECKED int pn_softmax_shape(pn_call *call);
PN_CHECKED int pn_softmax_forward(pn_call *call, bool logarithm);
PN_CHECKED int pn_softmax_backward(pn_call *call, bool logarithm);

#ifdef __cplusplus
}
#endif
#endif
