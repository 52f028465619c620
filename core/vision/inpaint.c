/* inpaint.c: a background where the object stood.
** Colours: push-pull (Gortler et al., "The Lumigraph", 1996): averages of what is known go up a pyramid and come down into the
** hole; a few sweeps towards the harmonic solution take the blocks out. Texture: what the known surroundings have above their
** own smooth colours is copied over in overlapping patches from places of like colour; windows are normalised by the root of
** the sum of their squares, so the copy has the variance of the original.
** Shapes: image u8 (H,W,3), hole u8 (H,W) -> u8 (H,W,3). */
#include <string.h>
#include "picture.h"
#include "warp.h"

enum { PATCH = 24, STEP = 12, JITTER = 5, CANDIDATES = 32, REACH = 48, SMOOTH = 6, RIM = 2, SWEEPS = 48 };

/* colour: v4 [h*w], the fourth lane is the weight (0 unknown .. 1 known). Fills every pixel; known ones keep their colour. */
static int push_pull(v4 *colour, int64_t h, int64_t w) {
  bool complete = true;
  for (int64_t i = 0; i < h * w && complete; i++) complete = colour[i][3] >= 1;
  if (complete || (h == 1 && w == 1)) return 0;
  int64_t ch = pn_half(h), cw = pn_half(w);
  v4 *coarse = pn_alloc(sizeof *coarse * (size_t)(ch * cw));
  if (!coarse) return -1;
  static const float tent[4] = { 1, 3, 3, 1 };
  for (int64_t y = 0; y < ch; y++)
    for (int64_t x = 0; x < cw; x++) {
      v4 sum = pn_splat(0);
      for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4; i++) {
          int64_t v = 2 * y - 1 + j, u = 2 * x - 1 + i;
          if (v < 0 || u < 0 || v >= h || u >= w) continue;
          v4 c = colour[v * w + u];
          float k = tent[i] * tent[j] * c[3];
          c[3] = 1;
          sum += c * pn_splat(k);
        }
      float weight = sum[3];
      if (weight > 0) sum /= pn_splat(weight);
      sum[3] = fminf(1, weight / 16);
      coarse[y * cw + x] = sum;
    }
  int rc = push_pull(coarse, ch, cw);
  for (int64_t y = 0; y < h && !rc; y++)
    for (int64_t x = 0; x < w; x++) {
      v4 *c = colour + y * w + x;
      if ((*c)[3] >= 1) continue;
      float fx = ((float)x - 0.5f) / 2, fy = ((float)y - 0.5f) / 2;
      int64_t x0 = pn_floor(fx), y0 = pn_floor(fy);
      v4 sum = pn_splat(0);
      for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++) {
          int64_t u = pn_max64(0, pn_min64(cw - 1, x0 + i)), v = pn_max64(0, pn_min64(ch - 1, y0 + j));
          float k = (i ? fx - (float)x0 : 1 - fx + (float)x0) * (j ? fy - (float)y0 : 1 - fy + (float)y0);
          sum += coarse[v * cw + u] * pn_splat(k);
        }
      float known = (*c)[3];
      *c = *c * pn_splat(known) + sum * pn_splat(1 - known);
      (*c)[3] = 1;
    }
  pn_free(coarse);
  return rc;
}

/* Mean over a (2 radius + 1) square of what lies outside the hole, twice: the smooth colours of the known part. In place. */
static int smooth_known(v4 *image, const uint8_t *hole, int64_t h, int64_t w, int radius) {
  v4 *line = pn_alloc(sizeof *line * (size_t)(h > w ? h : w));
  if (!line) return -1;
  for (int64_t i = 0; i < h * w; i++) {
    if (hole[i]) image[i] = pn_splat(0);
    else image[i][3] = 1;
  }
  for (int pass = 0; pass < 4; pass++) { /* rows, columns, rows, columns; the fourth lane carries the weight along */
    int64_t n = pass & 1 ? h : w, m = pass & 1 ? w : h, along = pass & 1 ? w : 1, across = pass & 1 ? 1 : w;
    for (int64_t j = 0; j < m; j++) {
      v4 *p = image + j * across, sum = pn_splat(0);
      for (int64_t i = 0; i < n; i++) line[i] = p[i * along];
      for (int64_t i = -radius; i < n; i++) {
        if (i + radius < n) sum += line[i + radius];
        if (i - radius - 1 >= 0) sum -= line[i - radius - 1];
        if (i >= 0) p[i * along] = sum * pn_splat(1.0f / (float)(2 * radius + 1));
      }
    }
  }
  for (int64_t i = 0; i < h * w; i++) {
    float weight = image[i][3];
    if (weight > 1e-4f) image[i] /= pn_splat(weight);
  }
  pn_free(line);
  return 0;
}

typedef struct box {
  int64_t x0, y0, x1, y1;
} box; /* x1, y1 beyond the last */

static box hole_box(const uint8_t *hole, int64_t h, int64_t w) {
  box b = { w, h, 0, 0 };
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++)
      if (hole[y * w + x]) {
        b.x0 = pn_min64(b.x0, x), b.y0 = pn_min64(b.y0, y);
        b.x1 = pn_max64(b.x1, x + 1), b.y1 = pn_max64(b.y1, y + 1);
      }
  return b;
}

/* Successive over-relaxation of the Laplace equation in the hole. Its pixels are visited in order: no thread takes part. */
static void harmonic(v4 *filled, const uint8_t *hole, int64_t h, int64_t w, box b) {
  for (int sweep = 0; sweep < SWEEPS; sweep++)
    for (int64_t y = b.y0; y < b.y1; y++)
      for (int64_t x = b.x0; x < b.x1; x++) {
        if (!hole[y * w + x]) continue;
        v4 *c = filled + y * w + x;
        v4 left = x > 0 ? c[-1] : *c, right = x + 1 < w ? c[1] : *c, up = y > 0 ? c[-w] : *c, down = y + 1 < h ? c[w] : *c;
        *c += pn_splat(1.6f) * ((left + right + up + down) * pn_splat(0.25f) - *c);
      }
}

/* Copies texture (image - smooth) into grain over the hole. known: sums of the hole in an integral image (h+1, w+1). */
static int copy_grain(v4 *grain, const v4 *filled, const v4 *smooth, const uint8_t *bytes, const uint8_t *hole, int64_t h,
                      int64_t w, box b, uint64_t seed) {
  int32_t *integral = pn_alloc_zero(sizeof *integral * (size_t)((h + 1) * (w + 1)));
  if (!integral) return -1;
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0, row = 0; x < w; x++) {
      row += hole[y * w + x] != 0;
      integral[(y + 1) * (w + 1) + x + 1] = integral[y * (w + 1) + x + 1] + (int32_t)row;
    }
  uint64_t offset = 0;
  float window[PATCH];
  for (int i = 0; i < PATCH; i++) window[i] = (float)sin(M_PI * (i + 0.5) / PATCH);
  int64_t reach = pn_max64(b.x1 - b.x0, b.y1 - b.y0);
  box from = { pn_max64(0, b.x0 - reach), pn_max64(0, b.y0 - reach), pn_min64(w, b.x1 + reach), pn_min64(h, b.y1 + reach) };
  for (int64_t row = b.y0 - STEP; row < b.y1; row += STEP)
    for (int64_t column = b.x0 - STEP; column < b.x1; column += STEP) {
      uint32_t shift[4];
      pn_philox(seed, 0, offset++, shift);
      int64_t px = column + shift[0] % (2 * JITTER + 1) - JITTER,
              py = row + shift[1] % (2 * JITTER + 1) - JITTER; /* no lattice shows */
      int64_t cx = pn_max64(0, pn_min64(w - 1, px + PATCH / 2)), cy = pn_max64(0, pn_min64(h - 1, py + PATCH / 2));
      int64_t best_x = -1, best_y = -1;
      float best = INFINITY;
      for (int k = 0; k < CANDIDATES; k++) {
        uint32_t r[4];
        pn_philox(seed, 0, offset++, r);
        int64_t sx = from.x0 + (int64_t)(r[0] % (uint32_t)pn_max64(1, from.x1 - from.x0 - PATCH + 1));
        int64_t sy = from.y0 + (int64_t)(r[1] % (uint32_t)pn_max64(1, from.y1 - from.y0 - PATCH + 1));
        if (sx + PATCH > w || sy + PATCH > h) continue;
        const int32_t *top = integral + sy * (w + 1), *low = top + PATCH * (w + 1);
        if (low[sx + PATCH] - low[sx] - top[sx + PATCH] + top[sx]) continue; /* touches the hole */
        v4 d = smooth[(sy + PATCH / 2) * w + sx + PATCH / 2] - filled[cy * w + cx];
        float dx = (float)(sx - px), dy = (float)(sy - py), cost = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
        cost += 400 * (dx * dx + dy * dy) / (float)(reach * reach); /* a source across the box costs what 20 grey levels do */
        if (cost < best) best = cost, best_x = sx, best_y = sy;
      }
      if (best_x < 0) continue;
      for (int64_t j = 0; j < PATCH; j++)
        for (int64_t i = 0; i < PATCH; i++) {
          int64_t x = px + i, y = py + j;
          if (x < 0 || y < 0 || x >= w || y >= h || !hole[y * w + x]) continue;
          int64_t source = (best_y + j) * w + best_x + i;
          const uint8_t *p = bytes + 3 * source;
          float k = window[i] * window[j];
          v4 texture = (v4){ p[0], p[1], p[2], 0 } - smooth[source];
          for (int c = 0; c < 3; c++) texture[c] = fmaxf(-REACH, fminf(REACH, texture[c])); /* grain, not the edges of things */
          texture *= pn_splat(k);
          texture[3] = k * k;
          grain[y * w + x] += texture;
        }
    }
  pn_free(integral);
  return 0;
}

int pn_inpaint(pn_tensor **out, pn_tensor *image, pn_tensor *hole, double grain, uint64_t seed) {
  if (pn_need_image(image, "inpaint: image", 3, 3) || pn_need_image(hole, "inpaint: hole", 2, 0)) return -1;
  int64_t h = image->shape[0], w = image->shape[1];
  if (hole->shape[0] != h || hole->shape[1] != w)
    return pn_fail("inpaint: the hole is %lld x %lld, the image %lld x %lld", (long long)hole->shape[0], (long long)hole->shape[1],
                   (long long)h, (long long)w);
  if (!(grain >= 0 && grain <= 4)) return pn_fail("inpaint: grain must be in 0..4, got %g", grain);
  pn_tensor *from = NULL, *mask = NULL, *to = NULL;
  v4 *filled = NULL, *smooth = NULL, *texture = NULL;
  int rc = -1;
  if (pn_tensor_contiguous(&from, image, PN_ROWS) || pn_tensor_contiguous(&mask, hole, PN_ROWS) ||
      pn_tensor_new(&to, PN_U8, 3, from->shape, PN_ROWS, PN_CPU))
    goto done;
  const uint8_t *bytes = (const uint8_t *)pn_bytes_of(from), *in = (const uint8_t *)pn_bytes_of(mask);
  uint8_t *result = (uint8_t *)pn_bytes_of(to);
  memcpy(result, bytes, (size_t)(3 * h * w));
  box b = hole_box(in, h, w);
  if (b.x0 < b.x1) {
    int64_t known = 0;
    for (int64_t i = 0; i < h * w; i++) known += !in[i];
    if (!known) {
      pn_fail("inpaint: the hole covers the whole image of %lld x %lld", (long long)h, (long long)w);
      goto done;
    }
    size_t size = sizeof(v4) * (size_t)(h * w);
    filled = pn_alloc(size);
    smooth = pn_alloc(size);
    texture = pn_alloc_zero(size);
    if (!filled || !smooth || !texture) goto done;
    for (int64_t i = 0; i < h * w; i++)
      smooth[i] = filled[i] = (v4){ bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2], in[i] ? 0 : 1 };
    if (smooth_known(smooth, in, h, w, SMOOTH) || smooth_known(filled, in, h, w, RIM)) goto done;
    /* Filled from smoothed colours, so that no grain of the rim streaks into the hole. */
    for (int64_t i = 0; i < h * w; i++) filled[i] = in[i] ? pn_splat(0) : (v4){ filled[i][0], filled[i][1], filled[i][2], 1 };
    if (push_pull(filled, h, w)) goto done;
    harmonic(filled, in, h, w, b);
    if (grain > 0 && copy_grain(texture, filled, smooth, bytes, in, h, w, b, seed)) goto done;
    for (int64_t i = 0; i < h * w; i++) {
      if (!in[i]) continue;
      v4 c = filled[i], t = texture[i];
      if (t[3] > 0) c += t * pn_splat((float)grain / sqrtf(t[3]));
      for (int k = 0; k < 3; k++) result[3 * i + k] = pn_to_byte(c[k]);
    }
  }
  *out = to;
  to = NULL;
  rc = 0;
done:
  pn_free(filled);
  pn_free(smooth);
  pn_free(texture);
  pn_tensor_release(from);
  pn_tensor_release(mask);
  pn_tensor_release(to);
  return rc;
}
