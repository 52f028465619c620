/* sub.cu: see core/ops/sub.c. */
#include "elementwise.h"

PN_CUDA_SUM(sub, -1)
