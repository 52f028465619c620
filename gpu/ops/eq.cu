/* eq.cu: see core/ops/eq.c. */
#include "elementwise.h"

PN_CUDA_COMPARISON(eq)
