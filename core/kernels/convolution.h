/* convolution.h: what conv3d and conv_transpose3d share between tensors and pixels: layouts, temporaries, gradients. */
#ifndef PENUMBRA_CONVOLUTION_H
#define PENUMBRA_CONVOLUTION_H
#include "convolve.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Checks axes and element types of x and weight, and says that of the result (precision.h). */
PN_CHECKED int pn_convolution_types(const pn_call *call, pn_dtype *result);
/* The shared arguments, in this order: stride, pad, dilation, groups (conv3d); stride, pad, output_pad, dilation, groups (transpose). */
PN_API void pn_convolution_geometry(const pn_call *call, const pn_tensor *spatial, bool transposed, pn_geometry *g, int64_t *high);

typedef int pn_pixels_fn(pn_pixels to, void *context);
/* Runs fn on the pixels of t where its channels lie together, else on a temporary that is copied (add: added) into t. */
PN_CHECKED int pn_write_pixels(pn_tensor *t, bool add, pn_pixels_fn *fn, void *context);
/* A dense FILTER copy of weights, or the weights themselves (retained). */
static inline PN_CHECKED int pn_filter_of(pn_tensor **out, pn_tensor *w) { return pn_tensor_contiguous(out, w, PN_FILTER); }
/* Where a kernel may add a weight gradient in dense FILTER memory: dw itself, or zeros that closing adds to it (unless rc). */
PN_CHECKED int pn_filter_open(pn_tensor **dense, pn_tensor *dw);
PN_CHECKED int pn_filter_close(pn_tensor *dense, pn_tensor *dw, int rc);
/* dw += the weight gradient; and db += the sums of dy, where wanted. big is gathered by taps, small is not (dy of conv3d, x of its transpose). */
PN_CHECKED int pn_convolution_weight_gradient(pn_call *call, pn_tensor *big, pn_tensor *small, const pn_geometry *g);
PN_CHECKED int pn_convolution_bias_gradient(pn_call *call, pn_tensor *dy);
/* May dy, held once more than the call holds it, be written over? Not while anyone else sees its memory. */
PN_API bool pn_convolution_owns(const pn_call *call, const pn_tensor *dy);
/* Behind y = relu(scale * z + bias): *dz = scale * (dy where y is positive), retained, in dy's own memory where nobody else sees it;
** and the bias gradient, where wanted. y NULL: no relu; scale NULL: 1. dy's channels lie together; it is released. */
PN_CHECKED int pn_convolution_end_gradient(pn_call *call, pn_tensor **dz, pn_tensor *dy, pn_tensor *y, const real *scale);
#ifdef __cplusplus
}
#endif
#endif
