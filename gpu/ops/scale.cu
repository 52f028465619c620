/* scale.cu: see core/ops/scale.c. */
#include "elementwise.h"

PN_CUDA_UNARY(scale)
