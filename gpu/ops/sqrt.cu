/* sqrt.cu: see core/ops/sqrt.c. */
#include "elementwise.h"

PN_CUDA_UNARY(sqrt)
