/* sigmoid.cu: see core/ops/sigmoid.c. */
#include "elementwise.h"
#include "kernels/curve.h"

PN_CUDA_UNARY(sigmoid)
