/* tanh.cu: see core/ops/tanh.c. */
#include "elementwise.h"

PN_CUDA_UNARY(tanh)
