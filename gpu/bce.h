/* bce.h: both binary cross entropies on a device; the formulas are those of core/kernels/curve.h and core/kernels/bce.h.
**
** Forward: a block of threads sums each 4096 elements, in double; then one block joins the sums in their order, works out the
** weights, and writes the loss and what backward needs; with norm none
** one more kernel writes what each element loses. The host knows none of these numbers. A target that is no target is a
** complaint (gpu.h): the call has returned by then, so the next one that waits fails. */
#ifndef PENUMBRA_GPU_BCE_H
#define PENUMBRA_GPU_BCE_H
#include "kernels/bce.h"
#include "launch.h"

PN_CHECKED int pn_gpu_bce_forward(pn_call *call, bool balanced);
PN_CHECKED int pn_gpu_bce_backward(pn_call *call);
#endif
