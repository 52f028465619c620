/* winograd_tiles.c: tiles of an image and their transforms along three axes (winograd_tiles.h). */
#include "winograd_tiles.h"

#ifndef PN_F64_BUILD

enum { FEW_BYTES = 8 << 20 };

const pn_winograd_kernels *pn_winograd_lines(void) {
  return pn_cpu() >= PN_CPU_AVX512 ? &pn_winograd_avx512 : pn_cpu() >= PN_CPU_AVX2 ? &pn_winograd_avx2 : NULL;
}

const pn_product_kernels *pn_winograd_products(void) {
  return pn_cpu() >= PN_CPU_AVX512 ? &pn_product_avx512 : pn_cpu() >= PN_CPU_AVX2 ? &pn_product_avx2 : NULL;
}

pn_scheme pn_scheme_of(pn_winograd_tile tile) {
  pn_scheme s = { .lines = pn_winograd_lines(), .points = 1 };
  for (int d = 0; d < 3; d++) {
    s.kind[d] = tile.m[d] == 4 ? PN_F43 : tile.m[d] == 3 ? PN_F34 : tile.m[d] == 2 ? PN_F23 : -1;
    s.m[d] = tile.m[d] ? tile.m[d] : 1;
    s.r[d] = tile.m[d] == 3 ? 4 : tile.m[d] ? 3 : 1;
    s.n[d] = s.m[d] + s.r[d] - 1;
    s.points *= s.n[d];
  }
  return s;
}

void pn_transform(const pn_scheme *s, int which, const int *before, const int *after, bool last_first, const pn_ends *e) {
  float room[2][PN_WINOGRAD_MOST * PN_WINOGRAD_VECTORS * PN_MOST_VL] __attribute__((aligned(64)));
  int axes[3], n_axes = 0, size[3] = { before[0], before[1], before[2] };
  int64_t width = e->vectors * s->lines->vl;
  for (int i = 0; i < 3; i++) {
    int d = last_first ? 2 - i : i;
    if (s->kind[d] >= 0) axes[n_axes++] = d;
  }
  for (int i = 0; i < n_axes; i++) {
    int d = axes[i];
    pn_winograd_pass p = { .src = room[i % 2],
                           .src_step = width,
                           .dst = room[(i + 1) % 2],
                           .dst_step = width,
                           .at = e->at,
                           .n = e->n,
                           .vectors = e->vectors,
                           .outer = d == 0   ? 1
                                    : d == 1 ? size[0]
                                             : size[0] * size[1],
                           .inner = d == 2   ? 1
                                    : d == 1 ? size[2]
                                             : size[1] * size[2] };
    if (i == 0) p.src = e->src, p.from = e->from, p.src_step = e->src_step;
    if (i == n_axes - 1) p.dst = e->dst, p.to = e->to, p.dst_step = e->dst_step, p.bias = e->bias, p.add = e->add, p.relu = e->relu;
    s->lines->pass[s->kind[d]][which](&p);
    size[d] = after[d];
  }
}

pn_tiling pn_tiles_of(const pn_scheme *s, pn_pixels y) {
  pn_tiling t = {
    {pn_ceil_div(y.t, s->m[0]), pn_ceil_div(y.h, s->m[1]), pn_ceil_div(y.w, s->m[2])},
    0
  };
  t.total = y.n * t.count[0] * t.count[1] * t.count[2];
  return t;
}

void pn_look_at(const pn_tiling *tiles, int64_t tile, const int *step, const int64_t *low, const int *size, pn_pixels p,
                float *outside, float **to) {
  int64_t w0 = tile % tiles->count[2] * step[2] - low[2], h0 = tile / tiles->count[2] % tiles->count[1] * step[1] - low[1],
          t0 = tile / tiles->count[2] / tiles->count[1] % tiles->count[0] * step[0] - low[0],
          n = tile / tiles->count[2] / tiles->count[1] / tiles->count[0];
  for (int64_t t = t0; t < t0 + size[0]; t++)
    for (int64_t h = h0; h < h0 + size[1]; h++) {
      bool there = t >= 0 && t < p.t && h >= 0 && h < p.h;
      float *row = p.data + n * p.sn + t * p.st + h * p.sh;
      for (int64_t w = w0; w < w0 + size[2]; w++) *to++ = there && w >= 0 && w < p.w ? row + w * p.sw : outside;
    }
}

int64_t pn_cut_blocks(int64_t n, int64_t vl, int most, pn_channels *out, int *n_blocks, int *widest) {
  int64_t vectors = pn_ceil_div(n, vl), first = 0, blocks = pn_ceil_div(vectors, most);
  if (blocks < 4 * pn_threads()) blocks = pn_min64(vectors, pn_ceil_div(blocks, pn_threads()) * pn_threads());
  *n_blocks = (int)blocks;
  *widest = 0;
  for (int64_t b = 0; b < blocks; b++) {
    int nv = (int)(vectors / blocks + (b < vectors % blocks));
    out[b] = (pn_channels){ nv, first, 0 };
    first += nv * vl;
    if (nv > *widest) *widest = nv;
  }
  return first;
}

bool pn_few_tiles(const pn_scheme *s, const pn_tiling *tiles, int64_t k) {
  return tiles->total * s->points * k * (int64_t)sizeof(float) <= FEW_BYTES;
}

#endif
