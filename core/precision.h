/* precision.h: what convolutions multiply in, by device, and how CUDA's engines for them are picked. */
#ifndef PENUMBRA_PRECISION_H
#define PENUMBRA_PRECISION_H
#include "internal.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_AS_REAL, PN_AS_TF32, PN_AS_BF16, PN_AS_FP16 };
PN_API int pn_precision_of(int device);
/* The element type of a convolution's result on a device: real, or 16 bits in such a precision on CUDA. */
PN_API pn_dtype pn_product_dtype(int device);

typedef struct pn_minimal_filtering { /* see pn_set_winograd in penumbra.h */
  bool off;
  int tile[3]; /* the outputs of a tile along t,h,w; 0: whichever serves */
} pn_minimal_filtering;
pn_minimal_filtering pn_minimal_filtering_now(void);

typedef struct pn_engine_policy { /* see pn_set_engines in penumbra.h */
  int64_t workspace_bytes;
  bool autotune, plain, deterministic, exact;
} pn_engine_policy;
PN_API pn_engine_policy pn_engine_policy_now(void);

#ifdef __cplusplus
}
#endif
#endif
