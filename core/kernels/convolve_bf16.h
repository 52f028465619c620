/* convolve_bf16.h: the three of convolve.h with what they multiply rounded to bf16 (to nearest, ties to even), sums in f32. */
#ifndef PENUMBRA_CONVOLVE_BF16_H
#define PENUMBRA_CONVOLVE_BF16_H
#include "geometry.h"

/* Precision bf16 is in force, and this convolution (y and x its outputs and inputs) is worth rounding for. */
bool pn_takes_bf16(pn_pixels y, pn_pixels x, const pn_geometry *g);
/* What a product takes there, of what it takes in f32. */
double pn_bf16_cost(void);

PN_CHECKED int pn_convolve_bf16(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g);
PN_CHECKED int pn_convolve_data_bf16(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g);
PN_CHECKED int pn_convolve_weight_bf16(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g);

#endif
