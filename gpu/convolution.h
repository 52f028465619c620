/* convolution.h: convolution between tensors on a device, and its gradients: what conv3d and conv_transpose3d share. Names as in
** core/kernels/convolve.h: x is the large side, y the small one. dtype: the element type that is multiplied; what has another is cast. */
#ifndef PENUMBRA_GPU_CONVOLUTION_H
#define PENUMBRA_GPU_CONVOLUTION_H
#include "gpu.h"
#include "kernels/convolution.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pn_gpu_geometry {
  pn_geometry g;
  int64_t high[3];
} pn_gpu_geometry;

/* t with its channels together, of a type: t itself (retained), or a copy. */
PN_CHECKED int pn_gpu_read_as(pn_tensor **out, pn_tensor *t, pn_dtype dtype);
/* A weight as the engines want it, O,t,h,w,I in memory, of a type, times scale (NULL: 1): the weight itself (retained), or a copy. */
PN_CHECKED int pn_gpu_filter(pn_tensor **out, pn_tensor *weight, const pn_tensor *scale, pn_dtype dtype);
/* The filter of input 1 without scale: kept by forward, which thereby lets go of it, and found again by backward, or made anew where
** it was not kept. */
void pn_gpu_filter_keep(pn_call *call, pn_tensor *filter);
PN_CHECKED int pn_gpu_filter_kept(pn_tensor **out, pn_call *call, pn_dtype dtype);
/* y = x * filter + bias, then relu, multiplied in the filter's type; bias may be NULL. The relu may turn NaN into 0, as
** cuDNN's does, but not while NaN is trapped. */
PN_CHECKED int pn_gpu_convolve(pn_tensor *y, pn_tensor *x, pn_tensor *filter, pn_tensor *bias, bool relu, const pn_gpu_geometry *g);
/* x (+)= the adjoint in x, of y, plus bias; bias only without add. */
PN_CHECKED int pn_gpu_convolve_data(pn_tensor *x, bool add, pn_tensor *y, pn_tensor *filter, pn_tensor *bias,
                                    const pn_gpu_geometry *g);
/* Adds the adjoint in the weight, of y, to the gradient of input 1 where that wants one. */
PN_CHECKED int pn_gpu_convolve_weight(pn_call *call, pn_tensor *x, pn_tensor *y, const pn_gpu_geometry *g, pn_dtype dtype);
/* Behind y = relu(scale z + bias): *dz = scale (dy where y is positive), retained: dy itself where nothing stands behind, or in its
** memory where nobody else sees it; and the sums for the gradient of input 2, the bias, where wanted. y NULL: no relu; scale NULL: 1. */
PN_CHECKED int pn_gpu_end_gradient(pn_call *call, pn_tensor **dz, pn_tensor *dy, pn_tensor *y, pn_tensor *scale);

#ifdef __cplusplus
}
#endif
#endif
