/* relu.cu: see core/ops/relu.c. */
#include "elementwise.h"

PN_CUDA_UNARY(relu)
