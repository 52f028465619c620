/* pack.h: neighbouring elements that travel together, so that a thread moves 16 bytes at a time.
**
** pn_load and pn_store go between V adjacent elements of T, at an address that is a multiple of their bytes, and V reals. */
#ifndef PENUMBRA_GPU_PACK_H
#define PENUMBRA_GPU_PACK_H
#include "number.h"

template <typename T, int V> struct alignas(sizeof(T) * V) pn_pack { T at[V]; };
typedef pn_pack<uint32_t, 4> pn_sixteen; /* bytes of anything */

/* How many elements of T are 16 bytes. */
template <typename T> struct pn_per_pack {
  enum { COUNT = 16 / sizeof(T) };
};

template <typename T, int V> PN_DEVICE void pn_load(real *v, const T *p) {
  const pn_pack<T, V> pack = *(const pn_pack<T, V> *)(const void *)p;
  for (int i = 0; i < V; i++) v[i] = pn_from(pack.at[i]);
}

template <typename T, int V> PN_DEVICE void pn_store(T *p, const real *v) {
  pn_pack<T, V> pack;
  for (int i = 0; i < V; i++) pn_to(&pack.at[i], v[i]);
  *(pn_pack<T, V> *)(void *)p = pack;
}
#endif
