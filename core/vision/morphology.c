/* morphology.c: masks as shapes: disks, boundary, components, box, and the windows of the crop rule (METHOD 6).
** Shapes: mask u8 (H,W), masks (T,H,W); any value but 0 is object; results hold 0 or 1. */
#include <string.h>
#include "picture.h"

/* ---- frame by frame, on bits ---------------------------------------------------------------------------------------- */

typedef enum shape_kind { DILATE, ERODE, BOUNDARY } shape_kind;

typedef struct shaping {
  const uint8_t *from;
  uint8_t *to;
  int64_t h, w, radius;
  shape_kind kind;
} shaping;

static int shape_range(void *context, int64_t begin, int64_t end) {
  const shaping *k = context;
  pn_bits a = { 0 }, b = { 0 };
  int rc = pn_bits_new(&a, k->h, k->w);
  if (rc == 0) rc = pn_bits_new(&b, k->h, k->w);
  for (int64_t i = begin; i < end && rc == 0; i++) {
    pn_bits_pack(&a, k->from + i * k->h * k->w, -1);
    if (k->kind == BOUNDARY) pn_bits_boundary(&b, &a);
    else rc = pn_bits_dilate(&b, &a, k->radius, k->kind == ERODE);
    if (rc == 0) pn_bits_unpack(k->to + i * k->h * k->w, &b);
  }
  pn_bits_free(&a);
  pn_bits_free(&b);
  return rc;
}

static int shape_masks(pn_tensor **out, pn_tensor *mask, int64_t radius, shape_kind kind, const char *who) {
  if (radius < 0 || radius > 1000) return pn_fail("%s: radius must be 0..1000 pixels, got %lld", who, (long long)radius);
  pn_picture p;
  pn_tensor *y;
  if (pn_picture_of(&p, mask, PN_IS_MASK | PN_IS_MASKS, who) != 0) return -1;
  int rc = pn_u8_new(&y, mask->n_dims, mask->shape);
  if (rc == 0) {
    shaping k = { .from = p.data, .to = (uint8_t *)pn_bytes_of(y), .h = p.h, .w = p.w, .radius = radius, .kind = kind };
    rc = pn_parallel_try(p.n, 1, shape_range, &k);
    if (rc == 0) *out = y;
    else pn_tensor_release(y);
  }
  pn_tensor_release(p.held);
  return rc;
}

int pn_mask_dilate(pn_tensor **out, pn_tensor *mask, int64_t radius) { return shape_masks(out, mask, radius, DILATE, "dilate"); }
int pn_mask_erode(pn_tensor **out, pn_tensor *mask, int64_t radius) { return shape_masks(out, mask, radius, ERODE, "erode"); }
int pn_mask_boundary(pn_tensor **out, pn_tensor *mask) { return shape_masks(out, mask, 0, BOUNDARY, "boundary"); }

/* ---- components: runs of a row joined with those they touch in the row above (union by the smaller root) ------------ */

typedef struct run {
  int32_t y, first, last, root; /* root: index of a run of the same component, never larger than one's own */
} run;

static int32_t root_of(run *runs, int32_t i) {
  while (runs[i].root != i) i = runs[i].root = runs[runs[i].root].root;
  return i;
}

/* The runs of one mask, roots final. *runs by pn_free. */
static int find_runs(run **out, int32_t *n_out, const uint8_t *mask, int64_t h, int64_t w) {
  int64_t n_runs = 0;
  for (int64_t y = 0; y < h; y++) {
    for (int64_t x = 0; x < w; x++) n_runs += mask[y * w + x] && (x == 0 || !mask[y * w + x - 1]);
  }
  if (n_runs > INT32_MAX) return pn_fail("components: the mask has more than %d runs", INT32_MAX);
  run *runs = pn_alloc((size_t)pn_max64(1, n_runs) * sizeof *runs);
  if (!runs) return -1;
  int32_t n = 0, above = 0, above_end = 0;
  for (int64_t y = 0; y < h; y++) {
    int32_t begin = n;
    for (int64_t x = 0; x < w; x++) {
      if (!mask[y * w + x]) continue;
      int64_t first = x;
      while (x + 1 < w && mask[y * w + x + 1]) x++;
      runs[n] = (run){ .y = (int32_t)y, .first = (int32_t)first, .last = (int32_t)x, .root = n };
      while (above < above_end && runs[above].last < first - 1) above++;
      for (int32_t k = above; k < above_end && runs[k].first <= x + 1; k++) { /* diagonal neighbours count */
        int32_t a = root_of(runs, k), b = root_of(runs, n);
        if (a < b) runs[b].root = a;
        else runs[a].root = b;
      }
      n++;
    }
    above = begin;
    above_end = n;
  }
  for (int32_t i = 0; i < n; i++) runs[i].root = root_of(runs, i);
  *out = runs;
  *n_out = n;
  return 0;
}

int pn_mask_components(pn_tensor **labels, int64_t *n, pn_tensor *mask) {
  pn_picture p;
  if (pn_picture_of(&p, mask, PN_IS_MASK, "components") != 0) return -1;
  pn_tensor *y = NULL;
  run *runs = NULL;
  int64_t *area = NULL;
  int32_t *rank = NULL, n_runs = 0, n_parts = 0;
  int rc = find_runs(&runs, &n_runs, p.data, p.h, p.w);
  if (rc == 0) rc = pn_tensor_new(&y, PN_I32, 2, (int64_t[]){ p.h, p.w }, PN_ROWS, PN_CPU);
  if (rc == 0) {
    area = pn_alloc_zero((size_t)(n_runs + 1) * sizeof *area);
    rank = pn_alloc_zero((size_t)(2 * n_runs + 1) * sizeof *rank);
    rc = area && rank ? 0 : -1;
  }
  if (rc == 0) {
    int32_t *order = rank + n_runs;
    for (int32_t i = 0; i < n_runs; i++) {
      if (runs[i].root == i) order[n_parts++] = i;
      area[runs[i].root] += runs[i].last - runs[i].first + 1;
    }
    for (int32_t gap = n_parts / 2; gap > 0;
         gap = gap == 2 ? 1 : (int32_t)(gap / 2.2)) { /* shell sort: area falling, then reading order */
      for (int32_t i = gap; i < n_parts; i++) {
        int32_t v = order[i], j = i;
        for (; j >= gap && (area[order[j - gap]] < area[v] || (area[order[j - gap]] == area[v] && order[j - gap] > v)); j -= gap)
          order[j] = order[j - gap];
        order[j] = v;
      }
    }
    for (int32_t i = 0; i < n_parts; i++) rank[order[i]] = i + 1; /* order's entries are read before their own places are written */
    int32_t *to = (int32_t *)(void *)pn_bytes_of(y);
    memset(to, 0, (size_t)(p.h * p.w) * sizeof *to);
    for (int32_t i = 0; i < n_runs; i++) {
      for (int64_t x = runs[i].first; x <= runs[i].last; x++) to[runs[i].y * p.w + x] = rank[runs[i].root];
    }
    *labels = y;
    *n = n_parts;
  } else pn_tensor_release(y);
  pn_free(area);
  pn_free(rank);
  pn_free(runs);
  pn_tensor_release(p.held);
  return rc;
}

typedef struct keeping {
  const uint8_t *from;
  uint8_t *to;
  int64_t h, w;
} keeping;

static int keep_largest(void *context, int64_t begin, int64_t end) {
  const keeping *k = context;
  for (int64_t frame = begin; frame < end; frame++) {
    uint8_t *to = k->to + frame * k->h * k->w;
    run *runs;
    int32_t n;
    if (find_runs(&runs, &n, k->from + frame * k->h * k->w, k->h, k->w) != 0) return -1;
    int64_t *area = pn_alloc_zero((size_t)(n + 1) * sizeof *area);
    if (!area) {
      pn_free(runs);
      return -1;
    }
    int32_t best = 0;
    for (int32_t i = 0; i < n; i++) area[runs[i].root] += runs[i].last - runs[i].first + 1;
    for (int32_t i = 0; i < n; i++) {
      if (area[i] > area[best]) best = i;
    }
    memset(to, 0, (size_t)(k->h * k->w));
    for (int32_t i = 0; i < n; i++) {
      if (runs[i].root == best) memset(to + runs[i].y * k->w + runs[i].first, 1, (size_t)(runs[i].last - runs[i].first + 1));
    }
    pn_free(area);
    pn_free(runs);
  }
  return 0;
}

int pn_mask_largest(pn_tensor **out, pn_tensor *mask) {
  pn_picture p;
  pn_tensor *y;
  if (pn_picture_of(&p, mask, PN_IS_MASK | PN_IS_MASKS, "largest") != 0) return -1;
  int rc = pn_u8_new(&y, mask->n_dims, mask->shape);
  if (rc == 0) {
    keeping k = { .from = p.data, .to = (uint8_t *)pn_bytes_of(y), .h = p.h, .w = p.w };
    rc = pn_parallel_try(p.n, 1, keep_largest, &k);
    if (rc == 0) *out = y;
    else pn_tensor_release(y);
  }
  pn_tensor_release(p.held);
  return rc;
}

typedef struct selecting {
  const uint8_t *from;
  uint8_t *to;
  int object;
} selecting;

static void select_range(void *context, int64_t begin, int64_t end) {
  const selecting *k = context;
  const uint8_t *restrict from = k->from;
  uint8_t *restrict to = k->to, object = (uint8_t)k->object;
  if (k->object < 0)
    for (int64_t i = begin; i < end; i++) to[i] = from[i] != 0;
  else
    for (int64_t i = begin; i < end; i++) to[i] = from[i] == object;
}

int pn_mask_select(pn_tensor **out, pn_tensor *mask, int object) {
  pn_picture p;
  pn_tensor *y;
  if (object > 255) return pn_fail("select: object is %d, expects a number up to 255", object);
  if (pn_picture_of(&p, mask, PN_IS_MASK | PN_IS_MASKS, "select") != 0) return -1;
  int rc = pn_u8_new(&y, mask->n_dims, mask->shape);
  if (rc == 0) {
    selecting k = { .from = p.data, .to = (uint8_t *)pn_bytes_of(y), .object = object };
    pn_parallel(p.n * p.h * p.w, 1 << 18, select_range, &k);
    *out = y;
  }
  pn_tensor_release(p.held);
  return rc;
}

/* ---- box and windows --------------------------------------------------------------------------------------------------- */

int pn_mask_box(pn_tensor *mask, int64_t *box, int64_t *area) {
  pn_picture p;
  if (pn_picture_of(&p, mask, PN_IS_MASK, "box") != 0) return -1;
  int64_t top = p.h, left = p.w, bottom = 0, right = 0, n = 0;
  for (int64_t y = 0; y < p.h; y++) {
    for (int64_t x = 0; x < p.w; x++) {
      if (!p.data[y * p.w + x]) continue;
      n++;
      top = pn_min64(top, y);
      bottom = y + 1;
      left = pn_min64(left, x);
      right = pn_max64(right, x + 1);
    }
  }
  box[0] = n ? top : 0;
  box[1] = n ? left : 0;
  box[2] = bottom;
  box[3] = right;
  if (area) *area = n;
  pn_tensor_release(p.held);
  return 0;
}

static int check_window(const pn_picture *p, int64_t top, int64_t left, int64_t height, int64_t width, const char *who) {
  if (height < 1 || width < 1 || top < 0 || left < 0 || top > p->h - height || left > p->w - width)
    return pn_fail("%s: a window of %lld x %lld at %lld,%lld (height x width, top,left) does not fit a mask of %lld x %lld", who,
                   (long long)height, (long long)width, (long long)top, (long long)left, (long long)p->h, (long long)p->w);
  return 0;
}

int pn_mask_windows(pn_windows *out, pn_tensor *mask, int64_t height, int64_t width, double threshold) {
  pn_picture p;
  if (pn_picture_of(&p, mask, PN_IS_MASK, "windows") != 0) return -1;
  int64_t *sum = NULL, most = -1, n_accepted = 0;
  int rc = check_window(&p, 0, 0, height, width, "windows");
  if (rc == 0) {
    sum = pn_alloc_zero((size_t)((p.h + 1) * (p.w + 1)) * sizeof *sum); /* sum[y][x]: object pixels above and left of y,x */
    rc = sum ? 0 : -1;
  }
  if (rc == 0) {
    int64_t row = p.w + 1, pixels = height * width;
    for (int64_t y = 0; y < p.h; y++) {
      int64_t line = 0;
      for (int64_t x = 0; x < p.w; x++) {
        line += p.data[y * p.w + x] != 0;
        sum[(y + 1) * row + x + 1] = sum[y * row + x + 1] + line;
      }
    }
    pn_windows found = { 0 };
    for (int64_t y = 0; y + height <= p.h; y++) {
      const int64_t *a = sum + y * row, *b = sum + (y + height) * row;
      for (int64_t x = 0; x + width <= p.w; x++) {
        int64_t n = b[x + width] - b[x] - a[x + width] + a[x];
        n_accepted += (double)n > threshold * (double)pixels;
        if (n > most) {
          most = n;
          found.top = y;
          found.left = x;
        }
      }
    }
    found.best = (double)most / (double)pixels;
    found.share = (double)n_accepted / (double)((p.h - height + 1) * (p.w - width + 1));
    *out = found;
  }
  pn_free(sum);
  pn_tensor_release(p.held);
  return rc;
}

int pn_mask_fraction(double *out, pn_tensor *mask, int64_t top, int64_t left, int64_t height, int64_t width) {
  pn_picture p;
  if (pn_picture_of(&p, mask, PN_IS_MASK, "fraction") != 0) return -1;
  int rc = check_window(&p, top, left, height, width, "fraction");
  if (rc == 0) {
    int64_t n = 0;
    for (int64_t y = top; y < top + height; y++) {
      for (int64_t x = left; x < left + width; x++) n += p.data[y * p.w + x] != 0;
    }
    *out = (double)n / (double)(height * width);
  }
  pn_tensor_release(p.held);
  return rc;
}
