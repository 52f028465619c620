/* loop.h: kernels that go over tensors element by element, with broadcasting. The loop is planned by core/kernels/loop.c and goes
** to the kernel by value; pn_loop_at finds the operands of an element.
**
** What moves the bytes is pn_loop_map: V elements a thread (16 bytes of the narrower types) wherever the memory allows, one
** otherwise; the elements of an operand may be of any type. It wants a function of numbers, as a struct with a name of its own:
**
**   struct halved {
**     enum { INPUTS = 1 };
**     PN_DEVICE real of(const real *x, pn_unary k) { return x[0] / 2; }
**   };
**   pn_loop_start(&loop, ...); pn_loop_add(&loop, y); pn_loop_add(&loop, x);
**   return pn_loop_map<halved>(gpu, &loop, (pn_unary){ .fresh = true });          y = or, not fresh, y += */
#ifndef PENUMBRA_GPU_LOOP_H
#define PENUMBRA_GPU_LOOP_H
#include <string.h>
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

/* ---- several elements at a time ---------------------------------------------------------------------------------------------- */

/* How many elements a thread may take together: 8 (16-bit operands alone), 4, or 1. Operand 0 is what is written. */
static inline int pn_loop_width(const pn_loop *loop) {
  const int inner = loop->n_dims - 1;
  int64_t widest = 2;
  for (int k = 0; k < loop->n_operands; k++) {
    if (loop->dtype[k] != PN_REAL_DTYPE && loop->dtype[k] != PN_F16 && loop->dtype[k] != PN_BF16) return 1;
    if (loop->stride[k][inner] != 1 && (loop->stride[k][inner] || k == 0)) return 1;
    widest = pn_max64(widest, loop->bytes[k]);
  }
  for (int width = widest == 2 ? 8 : 4; width >= 4; width /= 2) {
    bool fits = inner == 0 || loop->size[inner] % width == 0; /* a single run may end in the middle of a pack */
    for (int k = 0; k < loop->n_operands && fits; k++) {
      if (loop->stride[k][inner] == 0) continue;
      fits = (uintptr_t)loop->base[k] % (uintptr_t)pn_min64(16, width * loop->bytes[k]) == 0;
      for (int d = 0; d < inner; d++) fits &= loop->stride[k][d] % width == 0;
    }
    if (fits) return width;
  }
  return 1;
}

/* V elements as they lie in memory. They are fetched from all operands before any is looked at, so that the loads overlap. */
template <int V> struct alignas(16) pn_raw { uint32_t word[V == 8 ? 4 : sizeof(real)]; };
template <> struct pn_raw<1> { real value; };
template <int N> struct alignas(N < 4 ? 4 * N : 16) pn_words { uint32_t word[N]; };

template <int N> PN_DEVICE void pn_move_words(void *to, const void *from) { *(pn_words<N> *)to = *(const pn_words<N> *)from; }

template <typename T> PN_DEVICE real pn_raw_get(const uint32_t *word, int v) {
  T element;
  memcpy(&element, (const char *)word + v * (int)sizeof(T), sizeof element);
  return pn_from(element);
}
template <typename T> PN_DEVICE void pn_raw_put(uint32_t *word, int v, real value) {
  T element;
  pn_to(&element, value);
  memcpy((char *)word + v * (int)sizeof(T), &element, sizeof element);
}

/* step: 1 for adjacent elements, 0 for one that stands for all V. */
template <int V> PN_DEVICE void pn_fetch(pn_raw<V> *raw, const void *p, int64_t at, int dtype, int64_t step) {
  if constexpr (V == 1) {
    raw->value = pn_get(p, at, dtype);
    return;
  } else {
    if constexpr (V == 4)
      if (dtype == PN_REAL_DTYPE) {
        const real *from = (const real *)p + at;
        if (step) pn_move_words<sizeof(real)>(raw->word, from);
        else pn_move_words<sizeof(real) / 4>(raw->word, from);
        return;
      }
    const uint16_t *from = (const uint16_t *)p + at;
    if (step) pn_move_words<V / 2>(raw->word, from);
    else raw->word[0] = *from;
  }
}

template <typename T, int V> PN_DEVICE void pn_unpack_as(real *x, const pn_raw<V> *raw, int64_t step) {
  const real first = pn_raw_get<T>(raw->word, 0); /* a choice between values, not places: so `raw` stays in registers */
  for (int v = 0; v < V; v++) {
    const real own = pn_raw_get<T>(raw->word, v);
    x[v] = step ? own : first;
  }
}

template <int V> PN_DEVICE void pn_unpack(real *x, const pn_raw<V> *raw, int dtype, int64_t step) {
  if constexpr (V == 1) {
    x[0] = raw->value;
    return;
  } else {
    if constexpr (V == 4)
      if (dtype == PN_REAL_DTYPE) return pn_unpack_as<real>(x, raw, step);
    if (dtype == PN_BF16) pn_unpack_as<pn_brain>(x, raw, step);
    else pn_unpack_as<pn_half>(x, raw, step);
  }
}

template <typename T, int V> PN_DEVICE void pn_write_as(void *p, int64_t at, const real *x) {
  pn_raw<V> raw;
  for (int v = 0; v < V; v++) pn_raw_put<T>(raw.word, v, x[v]);
  pn_move_words<V *(int)sizeof(T) / 4>((T *)p + at, raw.word);
}

template <int V> PN_DEVICE void pn_write(void *p, int64_t at, int dtype, const real *x) {
  if constexpr (V == 1) {
    pn_put(p, at, dtype, x[0]);
    return;
  } else {
    if constexpr (V == 4)
      if (dtype == PN_REAL_DTYPE) return pn_write_as<real, V>(p, at, x);
    if (dtype == PN_BF16) pn_write_as<pn_brain, V>(p, at, x);
    else pn_write_as<pn_half, V>(p, at, x);
  }
}

/* ---- a function of the elements ------------------------------------------------------------------------------------------------- */

/* DENSE: one axis, along which each operand moves by its step. */
template <typename F, int V, bool DENSE> PN_DEVICE void pn_map_at(const pn_loop *loop, int64_t i, pn_unary k) {
  const int inner = loop->n_dims - 1;
  int64_t at[PN_LOOP_OPERANDS];
  pn_raw<V> old = {}, raw[F::INPUTS];
  real x[F::INPUTS][V], y[V], was[V];
  if constexpr (DENSE)
    for (int o = 0; o <= F::INPUTS; o++) at[o] = i * loop->stride[o][0];
  else pn_loop_at(loop, i, at);
  if (!k.fresh) pn_fetch<V>(&old, loop->base[0], at[0], loop->dtype[0], 1);
  for (int o = 0; o < F::INPUTS; o++)
    pn_fetch<V>(&raw[o], loop->base[o + 1], at[o + 1], loop->dtype[o + 1], loop->stride[o + 1][inner]);
  for (int o = 0; o < F::INPUTS; o++) pn_unpack<V>(x[o], &raw[o], loop->dtype[o + 1], loop->stride[o + 1][inner]);
  for (int v = 0; v < V; v++) {
    real in[F::INPUTS];
    for (int o = 0; o < F::INPUTS; o++) in[o] = x[o][v];
    y[v] = F::of(in, k);
  }
  if (!k.fresh) {
    pn_unpack<V>(was, &old, loop->dtype[0], 1);
    for (int v = 0; v < V; v++) y[v] += was[v];
  }
  pn_write<V>(loop->base[0], at[0], loop->dtype[0], y);
}

template <typename F, int V, bool DENSE> PN_KERNEL void pn_map_elements(pn_loop loop, pn_unary k) {
  const int64_t n = loop.count / V;
  PN_EACH(i, n) pn_map_at<F, V, DENSE>(&loop, i * V, k);
  if constexpr (DENSE && V > 1) PN_EACH(i, loop.count - n * V) pn_map_at<F, 1, true>(&loop, n * V + i, k);
}

/* Plans the loop (y, then the inputs) and runs it; nothing where there are no elements. */
template <typename F> static int pn_loop_map(pn_gpu *gpu, pn_loop *loop, pn_unary k) {
  static_assert((int)F::INPUTS < (int)PN_LOOP_OPERANDS, "operands of a loop");
  pn_loop_plan(loop);
  if (!loop->count) return 0;
  const int width = pn_loop_width(loop);
  const bool dense = loop->n_dims == 1;
  auto map_elements = width == 1   ? pn_map_elements<F, 1, false>
                      : width == 4 ? (dense ? pn_map_elements<F, 4, true> : pn_map_elements<F, 4, false>)
                                   : (dense ? pn_map_elements<F, 8, true> : pn_map_elements<F, 8, false>);
  return PN_LAUNCH(gpu, map_elements, pn_gpu_blocks(gpu, pn_ceil_div(loop->count, width), 256), 256, *loop, k);
}
#endif
