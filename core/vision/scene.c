/* scene.c: one annotated frame taken apart into object and background, and rendered again in other poses: dreams of the
** first frame (Khoreva et al. 2017, "Lucid Data Dreaming"; METHOD 7).
**
** The object's colours are those of its eroded mask, carried outwards over its rim, so that no rim of the old background comes
** along; its alpha is the mask under a 3 x 3 binomial filter; its mask is the annotation read between pixels and cut at one
** half: at an unmoved pose it is the annotation exactly. Where the annotated frame ends, object and background are mirrored.
** Only the wanted window is ever rendered. A scene does not change: any number of threads may render it.
** Shapes: frame u8 (H,W,3), mask u8 (H,W), background u8 (H,W,3) -> K frames (h,w) and masks. */
#include <string.h>
#include "kernels/clip.h"
#include "picture.h"
#include "warp.h"

enum { GRID = 33, N_LEVELS = 5, CARRY = 6 };

struct pn_scene {
  int64_t h, w;
  pn_plane frame[N_LEVELS], background[N_LEVELS], object[N_LEVELS], mask[N_LEVELS]; /* RGBA, RGBA, RGBA, one byte 0 or 255 */
  float x0, y0, x1, y1;    /* where the object can be read: its box and a margin; beyond the frame's edge where it touches that */
  double gx0, gy0, gx, gy; /* the grid of the deformation: first node, distance of nodes */
};

/* Colours of the object everywhere near it. alpha 255 marks known ones while they spread. */
static int object_colours(uint8_t *rgba, const uint8_t *rgb, const uint8_t *background, const uint8_t *mask, int64_t h, int64_t w) {
  uint8_t *known = pn_alloc_zero((size_t)(h * w)), *next = pn_alloc((size_t)(h * w));
  if (!known || !next) {
    pn_free(known);
    pn_free(next);
    return -1;
  }
#define MASK(y, x) ((y) < 0 || (x) < 0 || (y) >= h || (x) >= w ? 1 : mask[(y)*w + (x)] != 0)
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++)
      known[y * w + x] = MASK(y, x) && MASK(y - 1, x) && MASK(y + 1, x) && MASK(y, x - 1) && MASK(y, x + 1);
#undef MASK
  memcpy(next, known, (size_t)(h * w));
  for (int64_t y = 0; y < h; y++) /* thin parts have no inside: they keep their own colours */
    for (int64_t x = 0; x < w; x++) {
      if (!mask[y * w + x] || known[y * w + x]) continue;
      bool near = false;
      for (int64_t v = pn_max64(0, y - 2); v <= pn_min64(h - 1, y + 2) && !near; v++)
        for (int64_t u = pn_max64(0, x - 2); u <= pn_min64(w - 1, x + 2) && !near; u++) near = known[v * w + u];
      next[y * w + x] = !near;
    }
  for (int64_t i = 0; i < h * w; i++) {
    known[i] = next[i];
    const uint8_t *p = (known[i] ? rgb : background) + 3 * i;
    rgba[4 * i] = p[0], rgba[4 * i + 1] = p[1], rgba[4 * i + 2] = p[2];
  }
  for (int turn = 0; turn < CARRY; turn++) {
    for (int64_t y = 0; y < h; y++)
      for (int64_t x = 0; x < w; x++) {
        int64_t i = y * w + x;
        if (known[i]) continue;
        int n = 0, sum[3] = { 0, 0, 0 };
        for (int64_t v = pn_max64(0, y - 1); v <= pn_min64(h - 1, y + 1); v++)
          for (int64_t u = pn_max64(0, x - 1); u <= pn_min64(w - 1, x + 1); u++)
            if (known[v * w + u]) {
              n++;
              for (int c = 0; c < 3; c++) sum[c] += rgba[4 * (v * w + u) + c];
            }
        if (!n) continue;
        for (int c = 0; c < 3; c++) rgba[4 * i + c] = (uint8_t)((sum[c] + n / 2) / n);
        next[i] = 1;
      }
    memcpy(known, next, (size_t)(h * w));
  }
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++) {
      int sum = 0;
      for (int j = -1; j <= 1; j++)
        for (int i = -1; i <= 1; i++)
          sum += (2 - (j != 0)) * (2 - (i != 0)) * (mask[pn_reflect(y + j, h) * w + pn_reflect(x + i, w)] != 0);
      rgba[4 * (y * w + x) + 3] = (uint8_t)((sum * 255 + 8) / 16);
    }
  pn_free(known);
  pn_free(next);
  return 0;
}

/* One level 0 image of its own memory and the halvings above it. */
static int build(pn_plane *levels, uint8_t *bytes, int64_t h, int64_t w, int channels) {
  pn_plane plane = { bytes, h, w, channels, 0 };
  return pn_pyramid_new(levels, N_LEVELS, &plane);
}

static uint8_t *rgba_of(const uint8_t *rgb, int64_t n) {
  uint8_t *to = pn_alloc((size_t)(4 * n));
  for (int64_t i = 0; to && i < n; i++) {
    memcpy(to + 4 * i, rgb + 3 * i, 3);
    to[4 * i + 3] = 255;
  }
  return to;
}

void pn_scene_free(pn_scene *scene) {
  if (!scene) return;
  pn_plane *sets[4] = { scene->frame, scene->background, scene->object, scene->mask };
  for (int i = 0; i < 4; i++) {
    pn_free(sets[i][0].data);
    pn_pyramid_free(sets[i], N_LEVELS);
  }
  pn_free(scene);
}

static int need_pair(const pn_tensor *t, const char *name, int64_t h, int64_t w) {
  if (t->shape[0] == h && t->shape[1] == w) return 0;
  return pn_fail("scene: the %s is %lld x %lld, the frame %lld x %lld", name, (long long)t->shape[0], (long long)t->shape[1],
                 (long long)h, (long long)w);
}

int pn_scene_new(pn_scene **out, pn_tensor *frame, pn_tensor *mask, pn_tensor *background) {
  if (pn_need_image(frame, "scene: frame", 3, 3) || pn_need_image(mask, "scene: mask", 2, 0) ||
      pn_need_image(background, "scene: background", 3, 3))
    return -1;
  int64_t h = frame->shape[0], w = frame->shape[1], n = h * w;
  if (need_pair(mask, "mask", h, w) || need_pair(background, "background", h, w)) return -1;
  pn_tensor *f = NULL, *m = NULL, *b = NULL;
  int rc = -1;
  pn_scene *scene = pn_alloc_zero(sizeof *scene);
  if (!scene || pn_tensor_contiguous(&f, frame, PN_ROWS) || pn_tensor_contiguous(&m, mask, PN_ROWS) ||
      pn_tensor_contiguous(&b, background, PN_ROWS))
    goto done;
  const uint8_t *rgb = (const uint8_t *)pn_bytes_of(f), *in = (const uint8_t *)pn_bytes_of(m),
                *behind = (const uint8_t *)pn_bytes_of(b);
  int64_t x0 = w, y0 = h, x1 = -1, y1 = -1;
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++)
      if (in[y * w + x]) x0 = pn_min64(x0, x), x1 = pn_max64(x1, x), y0 = pn_min64(y0, y), y1 = pn_max64(y1, y);
  if (x1 < 0) {
    pn_fail("scene: the mask is empty: there is no object to render");
    goto done;
  }
  scene->h = h, scene->w = w;
  double bw = (double)(x1 - x0 + 1), bh = (double)(y1 - y0 + 1);
  scene->x0 = (float)((double)x0 - (x0 < 2 ? bw / 2 : 2)), scene->x1 = (float)((double)x1 + (x1 > w - 3 ? bw / 2 : 2));
  scene->y0 = (float)((double)y0 - (y0 < 2 ? bh / 2 : 2)), scene->y1 = (float)((double)y1 + (y1 > h - 3 ? bh / 2 : 2));
  scene->gx = ((double)(scene->x1 - scene->x0) + 0.2 * bw) / (GRID - 1),
  scene->gy = ((double)(scene->y1 - scene->y0) + 0.2 * bh) / (GRID - 1);
  scene->gx0 = (double)scene->x0 - 0.1 * bw, scene->gy0 = (double)scene->y0 - 0.1 * bh;
  uint8_t *planes[4] = { rgba_of(rgb, n), rgba_of(behind, n), pn_alloc((size_t)(4 * n)), pn_alloc((size_t)n) };
  bool enough = planes[0] && planes[1] && planes[2] && planes[3] && !object_colours(planes[2], rgb, behind, in, h, w);
  for (int64_t i = 0; enough && i < n; i++) planes[3][i] = in[i] ? 255 : 0;
  pn_plane *sets[4] = { scene->frame, scene->background, scene->object, scene->mask };
  for (int i = 0; i < 4; i++) {
    if (enough && !build(sets[i], planes[i], h, w, i == 3 ? 1 : 4)) continue;
    sets[i][0].data = planes[i]; /* so that pn_scene_free finds it */
    for (int k = 1; k < N_LEVELS; k++) sets[i][k].data = NULL;
    enough = false;
  }
  if (!enough) goto done;
  *out = scene;
  scene = NULL;
  rc = 0;
done:
  pn_tensor_release(f);
  pn_tensor_release(m);
  pn_tensor_release(b);
  pn_scene_free(scene);
  return rc;
}

/* ---- rendering ---------------------------------------------------------------------------------------------------- */

/* What one frame needs, worked out once. */
typedef struct plan {
  float background[6], object[6]; /* output pixel -> pixel of the level (background), of the annotated frame (object) */
  int background_level, object_level;
  bool as_annotated, deformed;
  float reach;       /* the largest move of the deformation */
  const float *move; /* [GRID][GRID][2] */
} plan;

typedef struct render_job {
  const pn_scene *scene;
  const plan *plans;
  const pn_light *lights; /* [n_frames][2]: background, whole */
  int64_t h, w;
  uint8_t *frame_bytes, *mask_bytes;
  real *frame_reals, *mask_reals;
  int64_t frame_stride[4], mask_stride[3]; /* t, h, w, c */
  bool bgr;
  real value[256]; /* what the network reads for a byte */
} render_job;

/* Do the four pixels around (x, y) lie inside? Where they do, floor is no more than a conversion. */
static inline bool inside(const pn_plane *from, float x, float y) {
  return x >= 0 && y >= 0 && x < (float)(from->w - 1) && y < (float)(from->h - 1);
}

static inline v4 read_rgba(const pn_plane *from, float x, float y) {
  v4 fx, fy, a, b, c, d;
  if (inside(from, x, y)) {
    int x0 = (int)x, y0 = (int)y;
    fx = pn_splat(x - (float)x0), fy = pn_splat(y - (float)y0);
    const uint8_t *p = from->data + (y0 * from->w + x0) * 4, *q = p + from->w * 4;
    a = pn_pixel(p), b = pn_pixel(p + 4), c = pn_pixel(q), d = pn_pixel(q + 4);
  } else {
    int64_t x0 = pn_floor(x), y0 = pn_floor(y);
    fx = pn_splat(x - (float)x0), fy = pn_splat(y - (float)y0);
    int64_t u0 = pn_reflect(x0, from->w), u1 = pn_reflect(x0 + 1, from->w);
    const uint8_t *p = from->data + pn_reflect(y0, from->h) * from->w * 4,
                  *q = from->data + pn_reflect(y0 + 1, from->h) * from->w * 4;
    a = pn_pixel(p + 4 * u0), b = pn_pixel(p + 4 * u1), c = pn_pixel(q + 4 * u0), d = pn_pixel(q + 4 * u1);
  }
  v4 top = a + (b - a) * fx, low = c + (d - c) * fx;
  return top + (low - top) * fy;
}

static inline bool read_mask(const pn_plane *from, float x, float y) {
  int64_t u0, u1;
  float fx, fy;
  const uint8_t *p, *q;
  if (inside(from, x, y)) {
    int x0 = (int)x, y0 = (int)y;
    fx = x - (float)x0, fy = y - (float)y0;
    u0 = x0, u1 = x0 + 1;
    p = from->data + y0 * from->w, q = p + from->w;
    if (p[u0] == p[u1] && p[u0] == q[u0] && p[u0] == q[u1]) return p[u0] >= 128; /* most are */
  } else {
    int64_t x0 = pn_floor(x), y0 = pn_floor(y);
    fx = x - (float)x0, fy = y - (float)y0;
    u0 = pn_reflect(x0, from->w), u1 = pn_reflect(x0 + 1, from->w);
    p = from->data + pn_reflect(y0, from->h) * from->w, q = from->data + pn_reflect(y0 + 1, from->h) * from->w;
  }
  float top = (float)p[u0] + (float)(p[u1] - p[u0]) * fx, low = (float)q[u0] + (float)(q[u1] - q[u0]) * fx;
  return top + (low - top) * fy >= 127.5f;
}

/* Adds the deformation at (x, y) of the annotated frame. */
static void deform(const pn_scene *scene, const float *move, float *x, float *y) {
  float gx = (*x - (float)scene->gx0) / (float)scene->gx, gy = (*y - (float)scene->gy0) / (float)scene->gy;
  gx = gx < 0 ? 0 : gx > GRID - 1.001f ? GRID - 1.001f : gx;
  gy = gy < 0 ? 0 : gy > GRID - 1.001f ? GRID - 1.001f : gy;
  int i = (int)gx, j = (int)gy;
  float fx = gx - (float)i, fy = gy - (float)j;
  const float *p = move + 2 * (j * GRID + i), *q = p + 2 * GRID;
  for (int k = 0; k < 2; k++) {
    float top = p[k] + (p[k + 2] - p[k]) * fx, low = q[k] + (q[k + 2] - q[k]) * fx, d = top + (low - top) * fy;
    if (k) *y += d;
    else *x += d;
  }
}

static void render_rows(void *context, int64_t begin, int64_t end) {
  const render_job *job = context;
  const pn_scene *scene = job->scene;
  for (int64_t row = begin; row < end; row++) {
    int64_t t = row / job->h, y = row % job->h;
    const plan *p = job->plans + t;
    const pn_light *behind = job->lights + 2 * t, *whole = behind + 1;
    const pn_plane *ground = (p->as_annotated ? scene->frame : scene->background) + p->background_level;
    const pn_plane *object = scene->object + p->object_level, *mask = scene->mask + p->object_level;
    float scale = 1.0f / (float)(1 << p->object_level), shift = 0.5f * scale - 0.5f, fy = (float)y;
    const float *b = p->background, *o = p->object;
    bool paint = job->frame_bytes || job->frame_reals, lit = !whole->identity, lit_behind = !behind->identity;
    int64_t c_stride = job->frame_stride[3], x_stride = job->frame_stride[2], m_stride = job->mask_stride[2];
    int64_t frame_row = t * job->frame_stride[0] + y * job->frame_stride[1],
            mask_row = t * job->mask_stride[0] + y * job->mask_stride[1];
    uint8_t *bytes = job->frame_bytes ? job->frame_bytes + frame_row : NULL,
            *in_bytes = job->mask_bytes ? job->mask_bytes + mask_row : NULL;
    real *reals = job->frame_reals ? job->frame_reals + frame_row : NULL,
         *in_reals = job->mask_reals ? job->mask_reals + mask_row : NULL;
    int64_t red = job->bgr ? 2 * c_stride : 0, blue = job->bgr ? 0 : 2 * c_stride;
    float x0 = scene->x0, x1 = scene->x1, y0 = scene->y0, y1 = scene->y1, reach = p->reach;
    float b2 = b[1] * fy + b[2], b5 = b[4] * fy + b[5], o2 = o[1] * fy + o[2], o5 = o[4] * fy + o[5];
    for (int64_t x = 0; x < job->w; x++) {
      float fx = (float)x;
      v4 colour = pn_splat(0);
      if (paint) {
        colour = read_rgba(ground, b[0] * fx + b2, b[3] * fx + b5);
        if (lit_behind) colour = pn_relight_pixel(behind, colour);
      }
      bool in = false;
      float u = o[0] * fx + o2, v = o[3] * fx + o5;
      if (u > x0 - reach && u < x1 + reach && v > y0 - reach && v < y1 + reach) {
        if (p->deformed) deform(scene, p->move, &u, &v);
        if (u > x0 && u < x1 && v > y0 && v < y1) {
          u = u * scale + shift, v = v * scale + shift;
          in = read_mask(mask, u, v);
          if (paint && !p->as_annotated) {
            v4 over = read_rgba(object, u, v);
            colour += (over - colour) * pn_splat(over[3] * (1 / 255.0f));
          }
        }
      }
      if (in_bytes) in_bytes[x * m_stride] = in;
      else if (in_reals) in_reals[x * m_stride] = in;
      if (!paint) continue;
      if (lit) colour = pn_relight_pixel(whole, colour);
      i4 byte = pn_to_bytes(colour);
      if (bytes) {
        for (int c = 0; c < 3; c++) bytes[x * x_stride + c * c_stride] = (uint8_t)byte[c];
      } else { /* through bytes, as frames from a file are */
        real *to = reals + x * x_stride;
        to[red] = job->value[byte[0]], to[c_stride] = job->value[byte[1]], to[blue] = job->value[byte[2]];
      }
    }
  }
}

/* Strides of t, h, w, c of a destination: u8 (K,h,w[,3]) or real (1,c,K,h,w). */
static int destination(const pn_tensor *t, const char *name, int64_t channels, int64_t k, int64_t *h, int64_t *w, int64_t *stride) {
  char shape[96];
  pn_format_shape(shape, sizeof shape, t->n_dims, t->shape);
  bool bytes = t->dtype == PN_U8, reals = t->dtype == PN_REAL_DTYPE && t->n_dims == 5;
  if (bytes && (t->n_dims != (channels == 3 ? 4 : 3) || (channels == 3 && t->shape[3] != 3))) bytes = false;
  if (reals && (t->shape[0] != 1 || t->shape[1] != channels)) reals = false;
  if ((!bytes && !reals) || pn_device_of(t) != PN_CPU)
    return pn_fail("scene: %s must be u8 (K,h,w%s) or real (1,%lld,K,h,w) on the cpu, is %s (%s)", name, channels == 3 ? ",3" : "",
                   (long long)channels, pn_dtype_name(t->dtype), shape);
  int first = bytes ? 0 : 2;
  if (t->shape[first] != k)
    return pn_fail("scene: %d poses, but %s is for %lld (%s)", (int)k, name, (long long)t->shape[first], shape);
  if (*h && (*h != t->shape[first + 1] || *w != t->shape[first + 2]))
    return pn_fail("scene: masks (%s) have not the size of the frames, %lld x %lld", shape, (long long)*h, (long long)*w);
  *h = t->shape[first + 1], *w = t->shape[first + 2];
  for (int i = 0; i < 3; i++) stride[i] = t->stride[first + i];
  if (channels == 3) stride[3] = bytes ? t->stride[3] : t->stride[1];
  return 0;
}

/* The deformation on the grid: a sum of cardinal splines (1 at one point, 0 at the others), one set for all frames. */
static int deformation(const pn_scene *scene, int n_frames, int n_points, const double *points, const double *moves, float *grid,
                       float *reach) {
  int n = n_points;
  if (n < 3 || n > 64) return pn_fail("scene: a deformation needs 3 to 64 points, got %d", n);
  double *identity = pn_alloc_zero(sizeof(double) * (size_t)(n * n)),
         *coefficients = pn_alloc(sizeof(double) * (size_t)((n + 3) * n));
  float *cardinal = pn_alloc(sizeof(float) * GRID * GRID * (size_t)n);
  int rc = -1;
  if (!identity || !coefficients || !cardinal) goto done;
  for (int i = 0; i < n; i++) identity[i * n + i] = 1;
  if (pn_tps_fit(n, points, identity, n, coefficients)) goto done;
  for (int j = 0; j < GRID; j++)
    for (int i = 0; i < GRID; i++) {
      double value[64];
      pn_tps_at(n, points, coefficients, n, scene->gx0 + i * scene->gx, scene->gy0 + j * scene->gy, value);
      for (int k = 0; k < n; k++) cardinal[(j * GRID + i) * n + k] = (float)value[k];
    }
  for (int t = 0; t < n_frames; t++) {
    reach[t] = 0;
    for (int node = 0; node < GRID * GRID; node++)
      for (int axis = 0; axis < 2; axis++) {
        double d = 0;
        for (int k = 0; k < n; k++) d += moves[2 * (t * n + k) + axis] * (double)cardinal[node * n + k];
        if (!(fabs(d) < 1e6)) {
          pn_fail("scene: the deformation of frame %d is not finite", t + 1);
          goto done;
        }
        grid[2 * (t * GRID * GRID + node) + axis] = (float)d;
        reach[t] = fmaxf(reach[t], (float)fabs(d));
      }
  }
  rc = 0;
done:
  pn_free(identity);
  pn_free(coefficients);
  pn_free(cardinal);
  return rc;
}

int pn_scene_render(const pn_scene *scene, int n_frames, const pn_pose *poses, int n_points, const double *points,
                    const double *moves, pn_tensor *frames, pn_tensor *masks, pn_pixel_rule rule) {
  if (!scene || !poses) return pn_fail("scene: nothing to render");
  if (n_frames < 1 || n_frames > 100000) return pn_fail("scene: cannot render %d frames", n_frames);
  if (rule != PN_RGB_PM1 && rule != PN_BGR_01) return pn_fail("scene: unknown pixel rule %d", (int)rule);
  render_job job = { .scene = scene, .bgr = rule == PN_BGR_01 };
  if (frames && destination(frames, "frames", 3, n_frames, &job.h, &job.w, job.frame_stride)) return -1;
  if (masks && destination(masks, "masks", 1, n_frames, &job.h, &job.w, job.mask_stride)) return -1;
  if (!job.h || !job.w) return 0;
  for (int v = 0; v < 256; v++) job.value[v] = pn_pixel_value(v, job.bgr);
  if (frames && frames->dtype == PN_U8) job.frame_bytes = (uint8_t *)pn_bytes_of(frames);
  else if (frames) job.frame_reals = pn_real_of(frames);
  if (masks && masks->dtype == PN_U8) job.mask_bytes = (uint8_t *)pn_bytes_of(masks);
  else if (masks) job.mask_reals = pn_real_of(masks);
  size_t n = (size_t)n_frames;
  int rc = -1;
  float *grid = NULL, *reach = pn_alloc_zero(sizeof *reach * n);
  plan *plans = pn_alloc_zero(sizeof *plans * n);
  pn_light *lights = pn_alloc(sizeof *lights * 2 * n);
  if (!reach || !plans || !lights) goto done;
  if (n_points) {
    grid = pn_alloc(sizeof *grid * 2 * GRID * GRID * n);
    if (!grid || deformation(scene, n_frames, n_points, points, moves, grid, reach)) goto done;
  }
  for (size_t t = 0; t < n; t++) {
    const pn_pose *pose = poses + t;
    plan *p = plans + t;
    if (pn_check_map(pose->background) || pn_check_map(pose->object)) goto done;
    if (pn_light_of(lights + 2 * t, pose->background_light) || pn_light_of(lights + 2 * t + 1, pose->light)) goto done;
    p->as_annotated = pose->as_annotated != 0;
    p->background_level = pn_level_for(pn_map_scale(pose->background), N_LEVELS);
    p->object_level = pn_level_for(pn_map_scale(pose->object), N_LEVELS);
    pn_map_at_level(pose->background, p->background_level, p->background);
    pn_map_at_level(pose->object, 0, p->object);
    p->deformed = reach[t] > 0;
    p->reach = reach[t];
    p->move = grid ? grid + 2 * GRID * GRID * t : NULL;
  }
  job.plans = plans;
  job.lights = lights;
  pn_parallel((int64_t)n * job.h, 16, render_rows, &job);
  rc = 0;
done:
  pn_free(grid);
  pn_free(reach);
  pn_free(plans);
  pn_free(lights);
  return rc;
}
