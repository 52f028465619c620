/* winograd_weight.c: the weight gradient of a convolution by minimal filtering (winograd.h).
**
** Tiles go by in chunks: x becomes U, dy becomes D, and S[point][k][channel] += U' D, tiles in order; in the end S becomes dw.
** Where the tiles are few, U of all of them is made once, and a unit of work is a block of channels with D and S of its own. */
#include <string.h>
#include "winograd_tiles.h"

#ifndef PN_F64_BUILD /* that build computes by the definition */

enum { CHUNK_BYTES = 28 << 20, MOST_CHUNK = 128 };

typedef struct weight_job {
  pn_scheme s;
  pn_tiling tiles;
  pn_pixels x, y; /* y: dy */
  int64_t low[3];
  const pn_product_kernels *products;
  pn_channels blocks[PN_MOST_CHANNEL_BLOCKS];
  int n_blocks, nv;
  int64_t first, count; /* the tiles of this chunk */
  int64_t n_tiles, k_rows, k_padded, n_padded, u_point, d_point, s_point;
  float *u, *d, *sums, *zeros, *dw;
} weight_job;

static void weight_inputs(void *context, int64_t begin, int64_t end) { /* units: tiles of the chunk */
  const weight_job *j = context;
  const pn_scheme *s = &j->s;
  int64_t step = (int64_t)PN_WINOGRAD_VECTORS * s->lines->vl;
  float *from[PN_WINOGRAD_MOST];
  for (int64_t m = begin; m < end; m++) {
    pn_look_at(&j->tiles, j->first + m, s->m, j->low, s->n, j->x, j->zeros, from);
    for (int64_t c = 0; c < j->k_padded; c += step) {
      pn_ends e = { .from = (const float *const *)from,
                    .at = c,
                    .n = pn_min64(step, j->x.c - c),
                    .vectors = pn_min64(step, j->k_padded - c) / s->lines->vl,
                    .dst = j->u + m * j->k_padded + c,
                    .dst_step = j->u_point };
      pn_transform(s, PN_INPUT, s->n, s->n, true, &e);
    }
  }
}

/* D[point][tile][channel] of one block, for some tiles. */
static void expand(const weight_job *j, const pn_channels *b, int64_t first, int64_t count, float *d, int64_t d_point) {
  const pn_scheme *s = &j->s;
  int64_t none[3] = { 0, 0, 0 }, width = (int64_t)b->nv * s->lines->vl;
  float *from[64];
  for (int64_t m = 0; m < count; m++) {
    pn_look_at(&j->tiles, first + m, s->m, none, s->m, j->y, j->zeros, from);
    pn_ends e = { .from = (const float *const *)from,
                  .at = b->first,
                  .n = pn_min64(width, j->y.c - b->first),
                  .vectors = b->nv,
                  .dst = d + m * width,
                  .dst_step = d_point };
    pn_transform(s, PN_EXPAND, s->m, s->n, true, &e);
  }
}

/* sums[k][0..width-1] += U' D of one point, over the tiles first..first+count-1 of the chunk. */
static void add_products(const weight_job *j, const pn_channels *b, int point, int64_t first, int64_t count, const float *d,
                         float *sums, int64_t ld) {
  int mi = j->products->outer_mi;
  const void *rows[MOST_CHUNK];
  for (int64_t m = 0; m < count; m++) rows[m] = j->u + point * j->u_point + (first + m) * j->k_padded;
  for (int64_t k = 0; k < j->k_rows; k += mi) j->products->outer[b->nv](sums + k * ld, ld, rows, k, d, count, mi);
}

static void chunk_expand(void *context, int64_t begin, int64_t end) { /* units: tiles of the chunk */
  const weight_job *j = context;
  for (int b = 0; b < j->n_blocks; b++) {
    int64_t width = (int64_t)j->blocks[b].nv * j->s.lines->vl;
    expand(j, &j->blocks[b], j->first + begin, end - begin, j->d + j->blocks[b].first * j->n_tiles + begin * width, j->d_point);
  }
}

static void chunk_products(void *context, int64_t begin, int64_t end) { /* units: points */
  const weight_job *j = context;
  for (int64_t p = begin; p < end; p++)
    for (int b = 0; b < j->n_blocks; b++)
      add_products(j, &j->blocks[b], (int)p, 0, j->count, j->d + p * j->d_point + j->blocks[b].first * j->n_tiles,
                   j->sums + p * j->s_point + j->blocks[b].first, j->n_padded);
}

/* dw[k][channels of a block] += G' of its sums, for k = begin..end-1. */
static void add_weights(const weight_job *j, const pn_channels *b, const float *sums, int64_t step, int64_t ld, int64_t begin,
                        int64_t end) {
  const pn_scheme *s = &j->s;
  int taps = s->r[0] * s->r[1] * s->r[2];
  float *to[PN_MOST_TILE_TAPS];
  for (int64_t k = begin; k < end; k++) {
    for (int t = 0; t < taps; t++) to[t] = j->dw + (t * j->x.c + k) * j->y.c;
    pn_ends e = { .src = sums + k * ld,
                  .src_step = step,
                  .to = to,
                  .at = b->first,
                  .n = pn_min64((int64_t)b->nv * s->lines->vl, j->y.c - b->first),
                  .vectors = b->nv,
                  .add = true };
    pn_transform(s, PN_FILTER_OUT, s->n, s->r, false, &e);
  }
}

static void all_weights(void *context, int64_t begin, int64_t end) { /* units: k */
  const weight_job *j = context;
  for (int b = 0; b < j->n_blocks; b++)
    add_weights(j, &j->blocks[b], j->sums + j->blocks[b].first, j->s_point, j->n_padded, begin, end);
}

static int weight_blocks(void *context, int64_t begin, int64_t end) { /* units: blocks, of all tiles */
  const weight_job *j = context;
  int vl = j->s.lines->vl;
  int64_t widest = (int64_t)j->nv * vl, d_point = j->n_tiles * widest + PN_APART, s_point = j->k_rows * widest + PN_APART;
  float *d = pn_alloc(sizeof(float) * (size_t)(j->s.points * (d_point + s_point)));
  if (!d) return -1;
  float *sums = d + j->s.points * d_point;
  for (int64_t unit = begin; unit < end; unit++) {
    const pn_channels *b = &j->blocks[unit];
    int64_t width = (int64_t)b->nv * vl;
    memset(sums, 0, sizeof(float) * (size_t)(j->s.points * s_point));
    for (int64_t first = 0; first < j->tiles.total; first += j->n_tiles) {
      int64_t count = pn_min64(j->n_tiles, j->tiles.total - first);
      expand(j, b, first, count, d, d_point);
      for (int p = 0; p < j->s.points; p++) add_products(j, b, p, first, count, d + p * d_point, sums + p * s_point, width);
    }
    add_weights(j, b, sums, s_point, width, 0, j->x.c);
  }
  pn_free(d);
  return 0;
}

int pn_winograd_weight(float *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g, pn_winograd_tile tile) {
  weight_job j = { .s = pn_scheme_of(tile), .x = x, .y = dy, .products = pn_winograd_products(), .dw = dw };
  const pn_scheme *s = &j.s;
  int64_t vl = s->lines->vl, mi = j.products->outer_mi;
  j.tiles = pn_tiles_of(s, dy);
  if (!j.tiles.total) return 0;
  for (int d = 0; d < 3; d++) j.low[d] = g->low[d];
  j.n_padded = pn_cut_blocks(dy.c, vl, j.products->outer_most_nv, j.blocks, &j.n_blocks, &j.nv);
  j.k_rows = pn_ceil_div(x.c, mi) * mi;
  j.k_padded = pn_ceil_div(j.k_rows, vl) * vl;
  bool few = pn_few_tiles(s, &j.tiles, j.k_padded);
  int64_t a_tile = (int64_t)sizeof(float) * s->points * (j.k_padded + j.n_padded);
  j.n_tiles = pn_min64(j.tiles.total, pn_min64(MOST_CHUNK, pn_max64(8, CHUNK_BYTES / a_tile)));
  j.u_point = (few ? j.tiles.total : j.n_tiles) * j.k_padded + PN_APART;
  j.d_point = few ? 0 : j.n_tiles * j.n_padded + PN_APART;
  j.s_point = few ? 0 : j.k_rows * j.n_padded + PN_APART;
  int64_t most = pn_max64(j.k_padded, j.n_padded);
  float *memory = pn_alloc(sizeof(float) * (size_t)(s->points * (j.u_point + j.d_point + j.s_point) + most));
  if (!memory) return -1;
  j.sums = memory;
  j.u = j.sums + s->points * j.s_point;
  j.d = j.u + s->points * j.u_point;
  j.zeros = j.d + s->points * j.d_point;
  memset(j.zeros, 0, sizeof(float) * (size_t)most);
  int rc = 0;
  if (few) {
    pn_parallel(j.tiles.total, 1, weight_inputs, &j);
    rc = pn_parallel_try(j.n_blocks, 1, weight_blocks, &j);
  } else {
    pn_clear(j.sums, sizeof(float) * (size_t)(s->points * j.s_point));
    for (; j.first < j.tiles.total; j.first += j.n_tiles) {
      j.count = pn_min64(j.n_tiles, j.tiles.total - j.first);
      pn_parallel(j.count, 1, weight_inputs, &j);
      pn_parallel(j.count, 1, chunk_expand, &j);
      pn_parallel(s->points, 1, chunk_products, &j);
    }
    pn_parallel(x.c, 1, all_weights, &j);
  }
  pn_free(memory);
  return rc;
}

#endif
