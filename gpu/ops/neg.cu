/* neg.cu: see core/ops/neg.c. */
#include "elementwise.h"

PN_CUDA_UNARY(neg)
