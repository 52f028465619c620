/* convolve.h: 3-D convolution and its two adjoints on channels-last pixels. Transposed convolution is the same three, renamed.
**
** Weights are dense in FILTER memory: (O,I,kt,kh,kw) stored t,h,w,I/groups,O; O and I are the channels of y and x. */
#ifndef PENUMBRA_CONVOLVE_H
#define PENUMBRA_CONVOLVE_H
#include "geometry.h"

/* y = x * w, then the epilogue; y is written, every element. */
PN_CHECKED int pn_convolve(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g);
/* dx (+)= the adjoint of pn_convolve in x, applied to dy; with add false dx is written, every element. bias (of x's channels) only then. */
PN_CHECKED int pn_convolve_data(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g);
/* dw += the adjoint in w. */
PN_CHECKED int pn_convolve_weight(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g);

#endif
