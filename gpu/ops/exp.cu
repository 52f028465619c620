/* exp.cu: see core/ops/exp.c. */
#include "elementwise.h"

PN_CUDA_UNARY(exp)
