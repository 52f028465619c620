/* loop.h: kernels that go over tensors element by element, with broadcasting. The loop is planned by core/kernels/elementwise.c and goes
** to the kernel by value; pn_loop_at finds the operands of an element. */
#ifndef PENUMBRA_GPU_LOOP_H
#define PENUMBRA_GPU_LOOP_H
#include "kernels/elementwise.h"
#include "number.h"

/* Offsets, in elements, of the operands of element i. */
PN_DEVICE void pn_loop_at(const pn_loop *loop, int64_t i, int64_t *at) {
  for (int k = 0; k < PN_LOOP_OPERANDS; k++) at[k] = 0;
  if (loop->n_dims == 1) {
    for (int k = 0; k < PN_LOOP_OPERANDS; k++) at[k] = i * loop->stride[k][0];
    return;
  }
  if (loop->count <= INT32_MAX) { /* divisions of 32 bits are several times faster */
    uint32_t rest = (uint32_t)i;
    for (int d = loop->n_dims - 1; d >= 0; d--) {
      uint32_t size = (uint32_t)loop->size[d], index = d ? rest % size : rest;
      rest /= size;
      for (int k = 0; k < PN_LOOP_OPERANDS; k++) at[k] += (int64_t)index * loop->stride[k][d];
    }
    return;
  }
  for (int d = loop->n_dims - 1; d >= 0; d--) {
    int64_t index = i % loop->size[d];
    i /= loop->size[d];
    for (int k = 0; k < PN_LOOP_OPERANDS; k++) at[k] += index * loop->stride[k][d];
  }
}

/* From elements to groups of `group` adjacent ones, where each operand allows: the innermost axis dense, all others and the address a
** multiple of so many. Element types must be of one size. After pn_loop_plan. */
static inline bool pn_loop_group(pn_loop *loop, int64_t group) {
  const int inner = loop->n_dims - 1;
  const int64_t bytes = loop->bytes[0] * group;
  if (loop->size[inner] % group) return false;
  for (int k = 0; k < loop->n_operands; k++) {
    if (loop->bytes[k] != loop->bytes[0] || loop->stride[k][inner] != 1 || (uintptr_t)loop->base[k] % (size_t)bytes) return false;
    for (int d = 0; d < inner; d++)
      if (loop->stride[k][d] % group) return false;
  }
  loop->size[inner] /= group;
  loop->count /= group;
  for (int k = 0; k < loop->n_operands; k++) {
    loop->bytes[k] = bytes;
    for (int d = 0; d < inner; d++) loop->stride[k][d] /= group;
  }
  return true;
}

PN_DEVICE real pn_loop_get(const pn_loop *loop, int k, const int64_t *at) { return pn_get(loop->base[k], at[k], loop->dtype[k]); }
PN_DEVICE void pn_loop_put(const pn_loop *loop, int k, const int64_t *at, real v) {
  pn_put(loop->base[k], at[k], loop->dtype[k], v);
}
#endif
