/* abs.cu: see core/ops/abs.c. */
#include "elementwise.h"

PN_CUDA_UNARY(abs)
