/* groups.h: what group_norm works out, for the CPU and for kernels: tensors as groups of channels, and the numbers of a group.
** core/ops/group_norm.c says what it is for. */
#ifndef PENUMBRA_KERNELS_GROUPS_H
#define PENUMBRA_KERNELS_GROUPS_H
#include <math.h>
#include "op.h"
#include "shared.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_GROUP_MEAN, PN_GROUP_INV, PN_GROUP_KEPT }; /* what is kept of a group: its mean, 1/sqrt(variance + eps) */

PN_SHARED real pn_group_inv(double variance, double eps) { return (real)(1 / sqrt(variance + eps)); }
PN_SHARED real pn_group_normal(real x, real mean, real inv) { return (x - mean) * inv; }
PN_SHARED real pn_group_value(real normal, real weight, real bias) { return normal * weight + bias; }
/* dx, from g = dy * weight and the means of g and of g * normal over the group. */
PN_SHARED real pn_group_slope(real normal, real g, real inv, real mean_g, real mean_gn) {
  return inv * (g - mean_g - normal * mean_gn);
}

/* x (N,C,...) as (N,G,C/G,...), a new tensor on the same memory. */
PN_API PN_CHECKED int pn_group_view(pn_tensor **out, const pn_call *call, pn_tensor *x);
/* A number a channel, (C), as (1,G,C/G,1,...), with as many axes. */
PN_API PN_CHECKED int pn_group_channels(pn_tensor **out, const pn_call *call, pn_tensor *of);
/* The same of C numbers for the channels of x itself, (1,C,1,...). */
PN_API PN_CHECKED int pn_group_along(pn_tensor **out, const pn_call *call, pn_tensor *of);

#ifdef __cplusplus
}
#endif
#endif
