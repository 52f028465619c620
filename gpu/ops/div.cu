/* div.cu: see core/ops/div.c. */
#include "elementwise.h"

PN_CUDA_BINARY(div)
