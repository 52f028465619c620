/* pool.h: windows over T, H, W: their geometry, and the two poolings on channels-last pixels. */
#ifndef PENUMBRA_KERNELS_POOL_H
#define PENUMBRA_KERNELS_POOL_H
#include "op.h"
#include "kernels/window.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_POOL_TAPS = 256 }; /* a winner's place in the window is kept in one byte */

PN_API pn_window pn_window_of(const pn_call *call); /* from kernel, stride, pad and the size of x */
PN_CHECKED int pn_window_shape(pn_call *call);      /* the shape rule of pooling, grid included */

PN_CHECKED int pn_max_pool(const pn_window *w, pn_tensor *y, uint8_t *index, pn_tensor *x); /* index dense, N,T,H,W,C; or NULL */
PN_CHECKED int pn_max_pool_back(const pn_window *w, pn_tensor *dx, bool add, pn_tensor *dy, const uint8_t *index);
PN_CHECKED int pn_avg_pool(const pn_window *w, bool count_pad, pn_tensor *y, pn_tensor *x);
PN_CHECKED int pn_avg_pool_back(const pn_window *w, bool count_pad, pn_tensor *dx, bool add, pn_tensor *dy);

#ifdef __cplusplus
}
#endif
#endif
