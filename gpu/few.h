/* few.h: transposed convolution from up to 64 channels onto 1 to 4: the upsampling of masks. cuDNN's tensor-core kernels want 8 channels on
** both sides; these read each pixel once.
**
** x (N,C,T,H,W), y (N,O,T',H',W'), w (C,O,kt,kh,kw) dense in FILTER memory, t,h,w,O,C. Element types: x and y real, f16 or bf16, w and its
** gradient real. Sums in a fixed order. */
#ifndef PENUMBRA_GPU_FEW_H
#define PENUMBRA_GPU_FEW_H
#include "gpu.h"
#include "kernels/geometry.h"
#ifdef __cplusplus
extern "C" {
#endif
bool pn_few_fit(int64_t c, int64_t o, const pn_geometry *g);
/* y = the transposed convolution of x, plus bias (O) where there is one. x's channels lie together. */
PN_CHECKED int pn_few_forward(pn_gpu *gpu, pn_tensor *y, const pn_tensor *x, const real *w, const real *bias, const pn_geometry *g);
/* dx (+)= its adjoint; dx's channels lie together. */
PN_CHECKED int pn_few_data(pn_gpu *gpu, pn_tensor *dx, bool add, const pn_tensor *dy, const real *w, const pn_geometry *g);
/* dw (+)= its adjoint in w. */
PN_CHECKED int pn_few_weight(pn_gpu *gpu, real *dw, bool add, const pn_tensor *x, const pn_tensor *dy, const pn_geometry *g);
#ifdef __cplusplus
}
#endif
#endif
