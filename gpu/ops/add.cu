/* add.cu: see core/ops/add.c. */
#include "elementwise.h"

PN_CUDA_SUM(add, 1)
