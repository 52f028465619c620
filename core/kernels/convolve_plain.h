/* convolve_plain.h: the definitions of convolve.h in plain C, by which every variant is judged. */
#ifndef PENUMBRA_KERNELS_CONVOLVE_PLAIN_H
#define PENUMBRA_KERNELS_CONVOLVE_PLAIN_H
#include "geometry.h"

void pn_convolve_plain(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g);
void pn_convolve_data_plain(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g);
void pn_convolve_weight_plain(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g);

#endif
