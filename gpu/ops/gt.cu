/* gt.cu: see core/ops/gt.c. */
#include "elementwise.h"

PN_CUDA_COMPARISON(gt)
