/* relu.cu: see core/ops/relu.c. */
#include "unary.h"

PN_CUDA_UNARY(relu, x<0 ? 0 : x, x> 0 ? dy : 0, 0, 0)
