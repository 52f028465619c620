/* minimum.cu: see core/ops/minimum.c. */
#include "elementwise.h"

PN_CUDA_BINARY(minimum)
