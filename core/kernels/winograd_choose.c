/* winograd_choose.c: where minimal filtering serves, and in which tiles. */
#include "convolve_bf16.h"
#include "precision.h"
#include "winograd_tiles.h"

#ifndef PN_F64_BUILD

static bool fits(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  if (!pn_winograd_lines() || g->groups != 1 || g->kernel[1] != 3 || g->kernel[2] != 3 || (g->kernel[0] != 3 && g->kernel[0] != 1))
    return false;
  for (int d = 0; d < 3; d++)
    if (g->stride[d] != 1 || g->dilation[d] != 1 || g->low[d] > g->kernel[d] - 1) return false;
  return x.c >= 4 && y.c >= 4 && y.c <= PN_MOST_CHANNEL_BLOCKS * pn_winograd_lines()->vl &&
         x.c <= PN_MOST_CHANNEL_BLOCKS * pn_winograd_lines()->vl;
}

/* What a convolution takes, in multiply-adds of a vector: each transformed vector counts for PASSES of them, and products with
** few k for SHORT. Fitted to the layers of I3D, 8..192 channels, 7..56 pixels wide (Zen 4): within a fifth of what was measured. */
enum { PASSES = 8 };
static const double SHORT = 1.2;

double pn_winograd_cost(pn_winograd_tile tile, pn_pixels y, pn_pixels x) {
  pn_scheme s = pn_scheme_of(tile);
  double tiles = (double)pn_tiles_of(&s, y).total, vl = s.lines->vl, in = (double)pn_ceil_div(x.c, s.lines->vl),
         out = (double)pn_ceil_div(y.c, s.lines->vl);
  return s.points * (SHORT * tiles * (double)x.c * out + PASSES * (tiles * (in + out) + in * vl * out));
}

double pn_direct_cost(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  double taps = (double)(g->kernel[0] * g->kernel[1] * g->kernel[2]), product = pn_takes_bf16(y, x, g) ? pn_bf16_cost() : 1;
  return product * (double)(y.n * y.t * y.h * y.w) * taps * (double)x.c * (double)pn_ceil_div(y.c, pn_winograd_lines()->vl);
}

bool pn_winograd_off(void) { return pn_minimal_filtering_now().off || !pn_winograd_lines(); }

pn_winograd_tile pn_winograd_choose(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  pn_winograd_tile best = {
    {0, 0, 0}
  };
  const pn_minimal_filtering setting = pn_minimal_filtering_now();
  if (setting.off || !fits(y, x, g)) return best;
  if (setting.tile[0]) {
    for (int d = 0; d < 3; d++) best.m[d] = d == 0 && g->kernel[0] == 1 ? 0 : setting.tile[d];
    return best;
  }
  double least = pn_direct_cost(y, x, g);
  for (int t = 2; t <= 4; t += 2)
    for (int hw = 2; hw <= 4; hw += 2) {
      pn_winograd_tile tile = {
        {g->kernel[0] == 1 ? 0 : t, hw, hw}
      };
      double cost = pn_winograd_cost(tile, y, x);
      if (cost < least) least = cost, best = tile;
    }
  return best;
}

#endif
