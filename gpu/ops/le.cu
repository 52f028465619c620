/* le.cu: see core/ops/le.c. */
#include "elementwise.h"

PN_CUDA_COMPARISON(le)
