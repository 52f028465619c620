/* pack.h: neighbouring elements that travel together, so that a thread moves 16 bytes at a time.
**
** pn_load and pn_store go between V adjacent elements of T, at an address that is a multiple of their bytes, and V reals. The emulation
** complains of any other address, as a device does. */
#ifndef PENUMBRA_GPU_PACK_H
#define PENUMBRA_GPU_PACK_H
#include "number.h"

template <typename T, int V> struct alignas(sizeof(T) * V) pn_pack { T at[V]; };
typedef pn_pack<uint32_t, 4> pn_sixteen; /* bytes of anything */

/* How many elements of T are 16 bytes. */
template <typename T> struct pn_per_pack {
  enum { COUNT = 16 / sizeof(T) };
};

#ifdef PN_EMULATED
static inline void pn_pack_move(void *to, const void *from, const void *device, size_t bytes) {
  if ((uintptr_t)device % bytes) pn_fake_complain("a kernel wants %zu bytes at an address that is no multiple of them", bytes);
  memcpy(to, from, bytes);
}
#else
#define pn_pack_move(to, from, device, bytes) (*(to) = *(from))
#endif

template <typename T, int V> PN_DEVICE pn_pack<T, V> pn_pack_get(const T *p) {
  pn_pack<T, V> pack;
  pn_pack_move(&pack, (const pn_pack<T, V> *)(const void *)p, p, sizeof pack);
  return pack;
}

template <typename T, int V> PN_DEVICE void pn_pack_put(T *p, const pn_pack<T, V> &pack) {
  pn_pack_move((pn_pack<T, V> *)(void *)p, &pack, p, sizeof pack);
}

template <typename T, int V> PN_DEVICE void pn_load(real *v, const T *p) {
  const pn_pack<T, V> pack = pn_pack_get<T, V>(p);
  for (int i = 0; i < V; i++) v[i] = pn_from(pack.at[i]);
}

/* The same of reals, 16 bytes at a time where V of them are more. */
template <int V> PN_DEVICE void pn_load_reals(real *v, const real *p) {
  enum { EACH = V < pn_per_pack<real>::COUNT ? V : pn_per_pack<real>::COUNT };
  for (int i = 0; i < V; i += EACH) pn_load<real, EACH>(v + i, p + i);
}

template <typename T, int V> PN_DEVICE void pn_store(T *p, const real *v) {
  pn_pack<T, V> pack;
  for (int i = 0; i < V; i++) pn_to(&pack.at[i], v[i]);
  pn_pack_put<T, V>(p, pack);
}
#endif
