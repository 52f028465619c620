/* ge.cu: see core/ops/ge.c. */
#include "elementwise.h"

PN_CUDA_COMPARISON(ge)
