/* softplus.cu: see core/ops/softplus.c. */
#include "elementwise.h"

PN_CUDA_UNARY(softplus)
