/* warp.c: clips through geometric maps.
** One map for all frames: an affine map and, on request, a thin-plate spline; bilinear for pictures (reading a box-filtered
** pyramid where the map shrinks, so that nothing aliases), nearest for masks (ids must stay ids).
** Shapes: u8 (T,H,W,C) -> u8 (T,h,w,C). */
#include <string.h>
#include "warp.h"

void pn_plane_halve(const pn_plane *from, pn_plane *to) {
  int64_t c = from->channels, row = from->w * c;
  for (int64_t y = 0; y < to->h; y++) {
    const uint8_t *a = from->data + 2 * y * row, *b = 2 * y + 1 < from->h ? a + row : a;
    uint8_t *p = to->data + y * to->w * c;
    for (int64_t x = 0; x < to->w; x++) {
      int64_t left = 2 * x * c, right = 2 * x + 1 < from->w ? left + c : left;
      for (int64_t k = 0; k < c; k++) p[x * c + k] = (uint8_t)((a[left + k] + a[right + k] + b[left + k] + b[right + k] + 2) >> 2);
    }
  }
}

int pn_pyramid_new(pn_plane *levels, int n, const pn_plane *from) {
  levels[0] = *from;
  for (int i = 1; i < n; i++) {
    pn_plane *level = levels + i;
    *level = (pn_plane){ NULL, pn_half(levels[i - 1].h), pn_half(levels[i - 1].w), from->channels, i };
    level->data = pn_alloc((size_t)(level->h * level->w * level->channels));
    if (!level->data) {
      pn_pyramid_free(levels, i);
      return -1;
    }
    pn_plane_halve(levels + i - 1, level);
  }
  return 0;
}

void pn_pyramid_free(pn_plane *levels, int n) {
  for (int i = 1; i < n; i++) pn_free(levels[i].data);
}

double pn_map_scale(const double *map) { return sqrt(fabs(map[0] * map[4] - map[1] * map[3])); }

int pn_level_for(double scale, int n_levels) {
  int level = 0;
  while (level + 1 < n_levels && scale > 1.5) {
    scale /= 2;
    level++;
  }
  return level;
}

int pn_check_map(const double *map) {
  for (int i = 0; i < 6; i++)
    if (!(fabs(map[i]) < 1e6)) return pn_fail("warp: number %d of the map is %g; each must be finite and below 1e6", i + 1, map[i]);
  return 0;
}

void pn_map_at_level(const double *map, int level, float *out) {
  double k = 1.0 / (double)(1 << level);
  for (int r = 0; r < 2; r++) {
    out[3 * r] = (float)(map[3 * r] * k);
    out[3 * r + 1] = (float)(map[3 * r + 1] * k);
    out[3 * r + 2] = (float)((map[3 * r + 2] + 0.5) * k - 0.5);
  }
}

typedef struct warp_job {
  const pn_plane *levels; /* [n_frames][n_levels] */
  int n_levels, level;
  int64_t n_frames;
  uint8_t *to;
  int64_t h, w;
  const double *map;
  int n_points;
  const double *points, *coefficients;
  pn_filter filter;
  pn_border border;
} warp_job;

/* The index to read for i of n, or -1 for zero. */
static int64_t at_border(int64_t i, int64_t n, pn_border border) {
  if ((uint64_t)i < (uint64_t)n) return i;
  if (border == PN_BORDER_ZERO) return -1;
  if (border == PN_BORDER_REPLICATE) return i < 0 ? 0 : n - 1;
  return pn_reflect(i, n);
}

static void read_nearest(const pn_plane *from, uint8_t *to, float x, float y, pn_border border) {
  int64_t c = from->channels, u = at_border(pn_floor(x + 0.5f), from->w, border),
          v = at_border(pn_floor(y + 0.5f), from->h, border);
  if (u < 0 || v < 0) memset(to, 0, (size_t)c);
  else memcpy(to, from->data + (v * from->w + u) * c, (size_t)c);
}

static void read_bilinear(const pn_plane *from, uint8_t *to, float x, float y, pn_border border) {
  int64_t c = from->channels, x0 = pn_floor(x), y0 = pn_floor(y);
  float fx = x - (float)x0, fy = y - (float)y0, weight[4] = { (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy };
  const uint8_t *p[4];
  if (x0 >= 0 && y0 >= 0 && x0 + 1 < from->w && y0 + 1 < from->h) {
    p[0] = from->data + (y0 * from->w + x0) * c;
    p[1] = p[0] + c;
    p[2] = p[0] + from->w * c;
    p[3] = p[2] + c;
  } else {
    for (int i = 0; i < 4; i++) {
      int64_t u = at_border(x0 + (i & 1), from->w, border), v = at_border(y0 + (i >> 1), from->h, border);
      if (u < 0 || v < 0) weight[i] = 0, p[i] = from->data;
      else p[i] = from->data + (v * from->w + u) * c;
    }
  }
  for (int64_t k = 0; k < c; k++)
    to[k] = (uint8_t)(weight[0] * (float)p[0][k] + weight[1] * (float)p[1][k] + weight[2] * (float)p[2][k] +
                      weight[3] * (float)p[3][k] + 0.5f);
}

static void warp_rows(void *context, int64_t begin, int64_t end) {
  const warp_job *job = context;
  int64_t c = job->levels[0].channels;
  double scale = 1.0 / (double)(1 << job->level), shift = 0.5 * scale - 0.5;
  for (int64_t y = begin; y < end; y++)
    for (int64_t x = 0; x < job->w; x++) {
      const double *m = job->map;
      double at[2] = { m[0] * (double)x + m[1] * (double)y + m[2], m[3] * (double)x + m[4] * (double)y + m[5] }, move[2];
      if (job->n_points) {
        pn_tps_at(job->n_points, job->points, job->coefficients, 2, (double)x, (double)y, move);
        at[0] += move[0];
        at[1] += move[1];
      }
      float u = (float)fmin(1e9, fmax(-1e9, at[0] * scale + shift)), v = (float)fmin(1e9, fmax(-1e9, at[1] * scale + shift));
      for (int64_t t = 0; t < job->n_frames; t++) { /* the map is found once for all frames */
        const pn_plane *from = job->levels + t * job->n_levels + job->level;
        uint8_t *to = job->to + ((t * job->h + y) * job->w + x) * c;
        if (job->filter == PN_NEAREST) read_nearest(from, to, u, v, job->border);
        else read_bilinear(from, to, u, v, job->border);
      }
    }
}

int pn_warp(pn_tensor **out, pn_tensor *clip, const double *map, int n_points, const double *points, const double *moves, int64_t h,
            int64_t w, pn_filter filter, pn_border border) {
  if (pn_need_image(clip, "warp: clip", 4, 0) || pn_check_map(map)) return -1;
  if (filter != PN_BILINEAR && filter != PN_NEAREST)
    return pn_fail("warp: pixels are read bilinear or nearest, not by filter %d", (int)filter);
  if (h < 1 || w < 1 || h > 1 << 20 || w > 1 << 20)
    return pn_fail("warp: cannot make frames of %lld x %lld", (long long)h, (long long)w);
  if (clip->shape[3] > 16) return pn_fail("warp: at most 16 channels, clip has %lld", (long long)clip->shape[3]);
  int64_t n_frames = clip->shape[0], shape[4] = { n_frames, h, w, clip->shape[3] };
  int level = filter == PN_BILINEAR ? pn_level_for(pn_map_scale(map), PN_MAX_LEVELS) : 0, n_levels = level + 1, made = 0, rc = -1;
  double *coefficients = NULL;
  pn_plane *levels = NULL;
  pn_tensor *from = NULL, *to = NULL;
  if (n_points) {
    coefficients = pn_alloc(sizeof(double) * 2 * (size_t)(n_points > 0 ? n_points + 3 : 3));
    if (!coefficients || pn_tps_fit(n_points, points, moves, 2, coefficients)) goto done;
  }
  if (pn_tensor_contiguous(&from, clip, PN_ROWS) || pn_tensor_new(&to, PN_U8, 4, shape, PN_ROWS, PN_CPU)) goto done;
  levels = pn_alloc(sizeof *levels * (size_t)(n_frames * n_levels));
  if (!levels) goto done;
  for (; made < n_frames; made++) {
    pn_plane plane = { (uint8_t *)pn_bytes_of(from) + made * from->stride[0], from->shape[1], from->shape[2], (int)from->shape[3],
                       0 };
    if (pn_pyramid_new(levels + made * n_levels, n_levels, &plane)) goto done;
  }
  warp_job job = { levels, n_levels,     level,  n_frames, (uint8_t *)pn_bytes_of(to), h, w, map, n_points,
                   points, coefficients, filter, border };
  pn_parallel(h, 8, warp_rows, &job);
  *out = to;
  to = NULL;
  rc = 0;
done:
  for (int i = 0; i < made; i++) pn_pyramid_free(levels + i * n_levels, n_levels);
  pn_free(levels);
  pn_free(coefficients);
  pn_tensor_release(from);
  pn_tensor_release(to);
  return rc;
}
