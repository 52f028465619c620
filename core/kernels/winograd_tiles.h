/* winograd_tiles.h: what the sums of minimal filtering share (winograd.c, winograd_weight.c): schemes, tiles, blocks of channels. */
#ifndef PENUMBRA_WINOGRAD_TILES_H
#define PENUMBRA_WINOGRAD_TILES_H
#include "winograd.h"
#include "product.h"

enum {
  PN_APART = 16,
  PN_MOST_TILE_TAPS = 64,
  PN_MOST_CHANNEL_BLOCKS = 256
}; /* PN_APART: floats that keep points off one cache set */

const pn_winograd_kernels *pn_winograd_lines(void); /* NULL where the CPU variant has none */
const pn_product_kernels *pn_winograd_products(void);

/* What F(m,r) does along each axis. */
typedef struct pn_scheme {
  const pn_winograd_kernels *lines;
  int kind[3];          /* PN_F23, ..., or -1: nothing to do along this axis */
  int m[3], n[3], r[3]; /* outputs, inputs and taps of a tile */
  int points;           /* of the transformed tile */
} pn_scheme;
pn_scheme pn_scheme_of(pn_winograd_tile tile);

typedef struct pn_ends { /* where a transform of a whole tile reads and writes; see pn_winograd_pass */
  const float *src, *const *from;
  float *dst, *const *to;
  int64_t src_step, dst_step, at, n, vectors;
  const float *bias;
  bool add, relu;
} pn_ends;
/* One transform along all three axes, from `before` elements an axis to `after`; last axis first, or first axis first. */
void pn_transform(const pn_scheme *s, int which, const int *before, const int *after, bool last_first, const pn_ends *e);

typedef struct pn_tiling {
  int64_t count[3], total; /* tiles along t,h,w; with the batch */
} pn_tiling;
pn_tiling pn_tiles_of(const pn_scheme *s, pn_pixels y);
/* The addresses of a box of size[] pixels of p, whose first stands at tile * step - low; `outside` for those beyond p. */
void pn_look_at(const pn_tiling *tiles, int64_t tile, const int *step, const int64_t *low, const int *size, pn_pixels p,
                float *outside, float **to);
/* Does U of all tiles, of k channels, fit the caches, so that blocks of channels are the better units? */
bool pn_few_tiles(const pn_scheme *s, const pn_tiling *tiles, int64_t k);

typedef struct pn_channels { /* a block of output channels */
  int nv;                    /* vectors */
  int64_t first;             /* channel, in the padded row */
  int64_t v;                 /* where its filters begin */
} pn_channels;
/* n channels in even blocks of at most `most` vectors, and of few enough that all threads have some. Returns n padded. */
int64_t pn_cut_blocks(int64_t n, int64_t vl, int most, pn_channels *out, int *n_blocks, int *widest);
#endif
