/* log.cu: see core/ops/log.c. */
#include "elementwise.h"

PN_CUDA_UNARY(log)
