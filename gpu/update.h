/* update.h: the optimisers of a device (backend.h says what each call does), many tensors a launch: a table of them goes with the kernel's
** arguments, of as many as fit 4 KiB. The rules are core/kernels/update_rules.h. */
#ifndef PENUMBRA_GPU_UPDATE_H
#define PENUMBRA_GPU_UPDATE_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif
PN_CHECKED int pn_gpu_update(int index, bool adam, const pn_update *list, int64_t n, const void *numbers, const double *verdict);
PN_CHECKED int pn_gpu_sum_squares(int index, const pn_update *list, int64_t n, double *sums);
PN_CHECKED int pn_gpu_judge(int index, const pn_update *list, int64_t n, double clip_norm, double *verdict);
#ifdef __cplusplus
}
#endif
#endif
