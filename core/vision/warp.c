/* warp.c: clips through geometric maps.
** One map for all frames: an affine map and, on request, a thin-plate spline; bilinear for pictures (reading a box-filtered
** pyramid where the map shrinks, so that nothing aliases), nearest for masks (ids must stay ids).
** Shapes: u8 (T,H,W,C) -> u8 (T,h,w,C). */
#include <string.h>
#include "picture.h"
#include "warp.h"

void pn_plane_halve(const pn_plane *from, pn_plane *to) {
  int64_t c = from->channels, row = from->w * c;
  for (int64_t y = 0; y < to->h; y++) {
    const uint8_t *restrict a = from->data + 2 * y * row, *restrict b = 2 * y + 1 < from->h ? a + row : a;
    uint8_t *restrict p = to->data + y * to->w * c;
    int64_t x = 0, whole = from->w / 2;
    if (c == 3)
      for (; x < whole; x++)
        for (int k = 0; k < 3; k++)
          p[3 * x + k] = (uint8_t)((a[6 * x + k] + a[6 * x + 3 + k] + b[6 * x + k] + b[6 * x + 3 + k] + 2) >> 2);
    else if (c == 4)
      for (; x < whole; x++)
        for (int k = 0; k < 4; k++)
          p[4 * x + k] = (uint8_t)((a[8 * x + k] + a[8 * x + 4 + k] + b[8 * x + k] + b[8 * x + 4 + k] + 2) >> 2);
    for (; x < to->w; x++) {
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

enum { STRETCH = 128 }; /* output pixels whose places are worked out at once */

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
  for (int64_t k = 0; k < c; k++) to[k] = u < 0 || v < 0 ? 0 : from->data[(v * from->w + u) * c + k];
}

/* The four pixels around (x, y), as offsets into the plane, and their weights. */
static void corners(const pn_plane *from, float x, float y, pn_border border, float *weight, int64_t *at) {
  int64_t c = from->channels, x0 = pn_floor(x), y0 = pn_floor(y);
  float fx = x - (float)x0, fy = y - (float)y0;
  weight[0] = (1 - fx) * (1 - fy), weight[1] = fx * (1 - fy), weight[2] = (1 - fx) * fy, weight[3] = fx * fy;
  if (x0 >= 0 && y0 >= 0 && x0 + 1 < from->w && y0 + 1 < from->h) {
    at[0] = (y0 * from->w + x0) * c;
    at[1] = at[0] + c;
    at[2] = at[0] + from->w * c;
    at[3] = at[2] + c;
  } else {
    for (int i = 0; i < 4; i++) {
      int64_t u = at_border(x0 + (i & 1), from->w, border), v = at_border(y0 + (i >> 1), from->h, border);
      if (u < 0 || v < 0) weight[i] = 0, at[i] = 0;
      else at[i] = (v * from->w + u) * c;
    }
  }
}

static void read_bilinear(const pn_plane *from, uint8_t *to, float x, float y, pn_border border) {
  float weight[4];
  int64_t at[4];
  corners(from, x, y, border, weight, at);
  for (int64_t k = 0; k < from->channels; k++)
    to[k] = (uint8_t)(weight[0] * (float)from->data[at[0] + k] + weight[1] * (float)from->data[at[1] + k] +
                      weight[2] * (float)from->data[at[2] + k] + weight[3] * (float)from->data[at[3] + k] + 0.5f);
}

/* Where the pixels of one output row read: the same in all frames. */
typedef struct tap {
  v4 weight[4];
  int32_t at[4];
} tap;

/* Four bytes from each corner, of which three are the pixel; the sums are those of read_bilinear. */
static void row_of_rgb(const uint8_t *from, uint8_t *to, const tap *taps, int64_t n) {
  for (int64_t x = 0; x < n; x++) {
    const tap *t = taps + x;
    v4 c = t->weight[0] * pn_pixel(from + t->at[0]) + t->weight[1] * pn_pixel(from + t->at[1]) +
           t->weight[2] * pn_pixel(from + t->at[2]) + t->weight[3] * pn_pixel(from + t->at[3]) + pn_splat(0.5f);
    i4 whole = __builtin_convertvector(c, i4);
    for (int k = 0; k < 3; k++) to[3 * x + k] = (uint8_t)whole[k];
  }
}

static void warp_rows(void *context, int64_t begin, int64_t end) {
  const warp_job *job = context;
  const pn_plane *plane = job->levels + job->level; /* of the first frame; the others have its size */
  int64_t c = plane->channels, size = plane->h * plane->w * c;
  double scale = 1.0 / (double)(1 << job->level), shift = 0.5 * scale - 0.5;
  float at[2][STRETCH];
  tap taps[STRETCH];
  bool rgb = c == 3 && job->filter == PN_BILINEAR;
  for (int64_t y = begin; y < end; y++)
    for (int64_t first = 0; first < job->w; first += STRETCH) { /* the map is found once for all frames */
      int64_t n = pn_min64(STRETCH, job->w - first);
      bool inside = rgb;
      for (int64_t i = 0; i < n; i++) {
        const double *m = job->map;
        double x = (double)(first + i), u = m[0] * x + m[1] * (double)y + m[2], v = m[3] * x + m[4] * (double)y + m[5], move[2];
        if (job->n_points) {
          pn_tps_at(job->n_points, job->points, job->coefficients, 2, x, (double)y, move);
          u += move[0];
          v += move[1];
        }
        at[0][i] = (float)fmin(1e9, fmax(-1e9, u * scale + shift));
        at[1][i] = (float)fmin(1e9, fmax(-1e9, v * scale + shift));
        if (!rgb) continue;
        float weight[4];
        int64_t corner[4];
        corners(plane, at[0][i], at[1][i], job->border, weight, corner);
        for (int k = 0; k < 4; k++) {
          taps[i].weight[k] = pn_splat(weight[k]);
          taps[i].at[k] = (int32_t)corner[k];
          inside = inside && corner[k] + 4 <= size;
        }
      }
      for (int64_t t = 0; t < job->n_frames; t++) {
        const pn_plane *from = plane + t * job->n_levels;
        uint8_t *to = job->to + ((t * job->h + y) * job->w + first) * c;
        if (inside) row_of_rgb(from->data, to, taps, n);
        else if (job->filter == PN_NEAREST)
          for (int64_t i = 0; i < n; i++) read_nearest(from, to + i * c, at[0][i], at[1][i], job->border);
        else
          for (int64_t i = 0; i < n; i++) read_bilinear(from, to + i * c, at[0][i], at[1][i], job->border);
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
