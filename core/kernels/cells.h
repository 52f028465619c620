/* cells.h: transposed convolution onto few channels, by cells. See cells.c.
**
** Names as in convolve.h: x is the large side of the geometry (the result of a transposed convolution), y the small one. */
#ifndef PENUMBRA_KERNELS_CELLS_H
#define PENUMBRA_KERNELS_CELLS_H
#include "convolve.h"

/* Is this the way to go? Kernels of whole strides, without groups or dilation, few channels in x. Never with plain kernels. */
bool pn_cells_fit(int64_t x_channels, const pn_geometry *g);

/* x = the adjoint of pn_convolve applied to y, plus bias (may be NULL): pn_convolve_data without add. */
PN_CHECKED int pn_cells_data(pn_pixels x, pn_pixels y, const real *w, const real *bias, const pn_geometry *g);
/* Both gradients of pn_cells_data, from dx, in one reading of it: dy (+)= pn_convolve(dx), and dw += pn_convolve_weight(dx, y).
** dy->data NULL: none; add: dy is added to. dw NULL: none; y is read for dw only. */
PN_CHECKED int pn_cells_back(const pn_pixels *dy, bool add, real *dw, pn_pixels dx, pn_pixels y, const real *w,
                             const pn_geometry *g);

#endif
