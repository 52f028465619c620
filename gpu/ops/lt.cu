/* lt.cu: see core/ops/lt.c. */
#include "elementwise.h"

PN_CUDA_COMPARISON(lt)
