/* square.cu: see core/ops/square.c. */
#include "elementwise.h"

PN_CUDA_UNARY(square)
