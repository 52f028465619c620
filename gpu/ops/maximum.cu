/* maximum.cu: see core/ops/maximum.c. */
#include "elementwise.h"

PN_CUDA_BINARY(maximum)
