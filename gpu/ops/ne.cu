/* ne.cu: see core/ops/ne.c. */
#include "elementwise.h"

PN_CUDA_COMPARISON(ne)
