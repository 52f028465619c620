/* gelu.cu: see core/ops/gelu.c. */
#include "elementwise.h"

PN_CUDA_UNARY(gelu)
