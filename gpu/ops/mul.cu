/* mul.cu: see core/ops/mul.c. */
#include "elementwise.h"

PN_CUDA_BINARY(mul)
