/* tensor.h: what the backend's table offers beside memory and operations (backend.h says what each does). */
#ifndef PENUMBRA_GPU_TENSOR_H
#define PENUMBRA_GPU_TENSOR_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif
PN_CHECKED int pn_gpu_assign(pn_tensor *to, const pn_tensor *from, bool add);
PN_CHECKED int pn_gpu_fill(pn_tensor *t, double value);
PN_CHECKED int pn_gpu_count_bad(const pn_tensor *t, int64_t *n_bad);
PN_CHECKED int pn_gpu_random(pn_tensor *rows, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream,
                             uint64_t offset); /* random.cu */
#ifdef __cplusplus
}
#endif
#endif
