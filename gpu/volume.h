/* volume.h: a tensor N,C,T,H,W as kernels see it, of any strides; and work over such a tensor cut into boxes.
**
** A box is what one block of threads does: some channels (128 bytes of them, where there are so many) of a few pixels that are neighbours
** along w, h and t. Where windows overlap, most of what its threads read is then read by others of the same box, and comes from the L1 cache. */
#ifndef PENUMBRA_GPU_VOLUME_H
#define PENUMBRA_GPU_VOLUME_H
#include "pack.h"

typedef struct pn_volume {
  char *data;
  int dtype;
  int64_t n, c, t, h, w, sn, sc, st, sh, sw; /* strides in elements */
} pn_volume;

static inline pn_volume pn_volume_of(const pn_tensor *x) {
  const int64_t *size = x->shape, *step = x->stride;
  pn_volume v = { pn_bytes_of(x), (int)x->dtype, size[0], size[1], size[2], size[3],
                  size[4],        step[0],       step[1], step[2], step[3], step[4] };
  return v;
}

/* Can its channels be read and written 16 bytes at a time? */
static inline bool pn_volume_packs(const pn_volume *v) {
  const int64_t bytes = pn_dtype_bytes((pn_dtype)v->dtype), group = 16 / bytes, size[4] = { v->n, v->t, v->h, v->w },
                step[4] = { v->sn, v->st, v->sh, v->sw };
  if (v->sc != 1 || v->c % group || (uintptr_t)v->data % 16) return false;
  for (int d = 0; d < 4; d++)
    if (size[d] > 1 && step[d] % group) return false;
  return true;
}

PN_SHARED int64_t pn_volume_count(const pn_volume *v) { return v->n * v->c * v->t * v->h * v->w; }

template <typename T> PN_DEVICE T *pn_volume_at(const pn_volume *v, int64_t n, int64_t c, int64_t t, int64_t h, int64_t w) {
  return (T *)(void *)v->data + n * v->sn + c * v->sc + t * v->st + h * v->sh + w * v->sw;
}

/* ---- boxes ------------------------------------------------------------------------------------------------------------------ */

enum { PN_BOX_THREADS = 256 };

typedef struct pn_boxes {
  int64_t a_clip, count;                          /* boxes of one n, and in all: as many blocks */
  int size[4], boxes[4], edge[4], group, threads; /* c in groups, w, h, t: elements in all, boxes in all, elements of a box */
} pn_boxes;

/* group: channels of a thread, 16 bytes of them or 1. overlap: do neighbours along t, h, w read much the same? v has elements. */
static inline pn_boxes pn_boxes_of(const pn_volume *v, int64_t group, const bool *overlap) {
  const int64_t size[4] = { v->c / group, v->w, v->h, v->t };
  const int64_t line = group == 1 ? 32 : 8; /* threads whose elements lie side by side */
  pn_boxes b;
  b.edge[0] = (int)pn_min64(size[0], line);
  b.edge[1] = (int)pn_min64(size[1], pn_max64(1, line / b.edge[0]));
  b.edge[2] = b.edge[3] = 1;
  int used = b.edge[0] * b.edge[1];
  for (;;) { /* the shortest edge grows, those with overlap first */
    int grow = 0, to = 0;
    for (int d = 1; d < 4; d++) {
      int longer = (int)pn_min64(2 * b.edge[d], size[d]);
      if (longer == b.edge[d] || used / b.edge[d] * longer > PN_BOX_THREADS) continue;
      if (grow && (overlap[3 - d] != overlap[3 - grow] ? overlap[3 - grow] : b.edge[d] >= b.edge[grow])) continue;
      grow = d;
      to = longer;
    }
    if (!grow) break;
    used = used / b.edge[grow] * to;
    b.edge[grow] = to;
  }
  b.a_clip = b.threads = 1;
  for (int d = 0; d < 4; d++) { /* of much the same size */
    b.size[d] = (int)size[d];
    b.boxes[d] = (int)pn_ceil_div(size[d], b.edge[d]);
    b.edge[d] = (int)pn_ceil_div(size[d], b.boxes[d]);
    b.a_clip *= b.boxes[d];
    b.threads *= b.edge[d];
  }
  b.group = (int)group;
  b.count = b.a_clip * v->n;
  b.threads = (b.threads + 31) / 32 * 32;
  return b;
}

/* One thread's work: a group of channels, from c on, of one pixel. */
typedef struct pn_place {
  int n, c, t, h, w;
} pn_place;

/* The place of this thread of this block; false when there is none. */
PN_DEVICE bool pn_box_place(const pn_boxes *b, pn_place *at) {
  uint32_t box = (uint32_t)(pn_block % b->a_clip), thread = (uint32_t)pn_thread;
  int i[4];
  for (int d = 0; d < 4; d++) {
    const uint32_t boxes = (uint32_t)b->boxes[d], edge = (uint32_t)b->edge[d];
    i[d] = (int)(box % boxes * edge + thread % edge);
    box /= boxes;
    thread /= edge;
  }
  *at = pn_place{ (int)(pn_block / b->a_clip), i[0] * b->group, i[3], i[2], i[1] };
  return !thread && i[0] < b->size[0] && i[1] < b->size[1] && i[2] < b->size[2] && i[3] < b->size[3];
}
#endif
