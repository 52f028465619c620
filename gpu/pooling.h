/* pooling.h: how both poolings are launched: over boxes of the pixels of y, or backward of dx, 16 bytes of channels a thread where
** memory allows. Pool: a struct with a pn_pooling `at`; Kernels::of<T, V>(back): its kernel, which takes a Pool by value. */
#ifndef PENUMBRA_GPU_POOLING_H
#define PENUMBRA_GPU_POOLING_H
#include "kernels/pool.h"
#include "volume.h"

typedef struct pn_pooling {
  pn_window window;
  pn_volume x, y; /* or dx and dy */
  bool add;
  pn_boxes boxes;
} pn_pooling;

static inline pn_pooling pn_pooling_of(const pn_call *call, const pn_tensor *x, const pn_tensor *y, bool add) {
  pn_pooling p = { pn_window_of(call), pn_volume_of(x), pn_volume_of(y), add, {} };
  return p;
}

template <typename Kernels, typename Pool> static int pn_pooling_run(pn_call *call, Pool pool, bool back) {
  pn_pooling *p = &pool.at;
  const pn_volume *over = back ? &p->x : &p->y;
  const bool packs = pn_volume_packs(&p->x) && pn_volume_packs(&p->y);
  bool overlap[3];
  pn_gpu *gpu = pn_gpu_of(call->x[0]);
  if (!gpu) return -1;
  if (!pn_volume_count(over)) return 0;
  for (int d = 0; d < 3; d++) overlap[d] = p->window.kernel[d] > p->window.stride[d];
  PN_BY_TYPE(p->x.dtype, return pn_need_real(call, 0), {
    enum { V = pn_per_pack<T>::COUNT };
    auto kernel = packs ? Kernels::template of<T, V>(back) : Kernels::template of<T, 1>(back);
    p->boxes = pn_boxes_of(over, packs ? V : 1, overlap);
    return PN_LAUNCH(gpu, kernel, p->boxes.count, p->boxes.threads, pool);
  });
}
#endif
