/* clamp.cu: see core/ops/clamp.c. */
#include "elementwise.h"

PN_CUDA_UNARY(clamp)
