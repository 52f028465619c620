/* winograd_choose.c: where minimal filtering serves, in which tiles, and the setting that overrules it. */
#include <stdio.h>
#include <string.h>
#include "convolve_bf16.h"
#include "winograd_tiles.h"

static enum { AUTO, OFF, FORCED } mode;
static pn_winograd_tile forced;

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

bool pn_winograd_off(void) { return mode == OFF || !pn_winograd_lines(); }

pn_winograd_tile pn_winograd_choose(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  pn_winograd_tile best = {
    {0, 0, 0}
  };
  if (mode == OFF || !fits(y, x, g)) return best;
  if (mode == FORCED) {
    best = forced;
    if (g->kernel[0] == 1) best.m[0] = 0;
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

int pn_set_winograd(const char *how) {
  int t, h, w, end = 0;
  if (!how) return pn_fail("set_winograd: how is NULL");
  if (!strcmp(how, "auto") || !strcmp(how, "off")) {
    mode = *how == 'o' ? OFF : AUTO;
    return 0;
  }
  if (sscanf(how, "%d,%d,%d%n", &t, &h, &w, &end) != 3 || how[end] || (t != 2 && t != 4) || (h != 2 && h != 4) ||
      (w != 2 && w != 4))
    return pn_fail("set_winograd: \"%s\" is none of auto, off, or the outputs of a tile along t,h,w (each 2 or 4)", how);
  forced = (pn_winograd_tile){
    {t, h, w}
  };
  mode = FORCED;
  return 0;
}

const char *pn_winograd(void) {
  static _Thread_local char text[16];
  if (mode == FORCED) snprintf(text, sizeof text, "%d,%d,%d", forced.m[0], forced.m[1], forced.m[2]);
  else snprintf(text, sizeof text, "%s", mode == OFF ? "off" : "auto");
  return text;
}
