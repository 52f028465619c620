/* pow.cu: see core/ops/pow.c. */
#include "elementwise.h"

PN_CUDA_UNARY(pow)
