/* resize.c: pictures to another size: area (what each new pixel covers), bilinear and nearest on half-pixel centres.
** Each axis has a table of (first, count, weights); a row is the weighted sum of source rows, then of their pixels, so an image
** passes through memory once. u8 is rounded at the end only. Shapes: (H,W), (H,W,C), (T,H,W), (T,H,W,C). */
#include <math.h>
#include <string.h>
#include "picture.h"

typedef struct axis {
  int64_t *first, *count;
  real *weight; /* most to an entry */
  int64_t most;
} axis;

static void axis_free(axis *a) {
  pn_free(a->first);
  pn_free(a->count);
  pn_free(a->weight);
  *a = (axis){ .most = 0 };
}

static int axis_make(axis *a, int64_t from, int64_t to, pn_filter filter) {
  double ratio = (double)from / (double)to;
  bool area = filter == PN_AREA && to < from;
  *a = (axis){ .most = area ? (int64_t)ceil(ratio) + 1 : 2 };
  a->first = pn_alloc((size_t)to * sizeof *a->first);
  a->count = pn_alloc((size_t)to * sizeof *a->count);
  a->weight = pn_alloc((size_t)(to * a->most) * sizeof *a->weight);
  if (!a->first || !a->count || !a->weight) {
    axis_free(a);
    return -1;
  }
  for (int64_t i = 0; i < to; i++) {
    real *weight = a->weight + i * a->most;
    if (area) {
      double begin = (double)i * ratio, end = pn_min64(i + 1, to) == to ? (double)from : (double)(i + 1) * ratio;
      int64_t k0 = (int64_t)begin, k1 = pn_min64((int64_t)ceil(end), from);
      k1 = pn_min64(k1, k0 + a->most);
      for (int64_t k = k0; k < k1; k++)
        weight[k - k0] = (real)((fmin(end, (double)(k + 1)) - fmax(begin, (double)k)) / (end - begin));
      a->first[i] = k0;
      a->count[i] = k1 - k0;
    } else {
      double centre = ((double)i + 0.5) * ratio;
      if (filter == PN_NEAREST) {
        a->first[i] = pn_min64((int64_t)centre, from - 1);
        a->count[i] = 1;
        weight[0] = 1;
      } else {
        double x = fmin(fmax(centre - 0.5, 0), (double)(from - 1));
        int64_t k = (int64_t)x;
        double part = x - (double)k;
        a->first[i] = k;
        a->count[i] = part > 0 ? 2 : 1;
        weight[0] = (real)(1 - part);
        weight[1] = (real)part;
      }
    }
  }
  return 0;
}

typedef struct resizing {
  const char *from;
  char *to;
  axis rows, columns;
  int64_t h0, w0, h, w, c;
  bool u8, copy; /* copy: nearest, any element type */
  size_t bytes;
} resizing;

static int resize_rows(void *context, int64_t begin, int64_t end) {
  const resizing *k = context;
  int64_t wide = k->w0 * k->c;
  real *line = pn_alloc((size_t)wide * sizeof *line);
  if (!line) return -1;
  for (int64_t i = begin; i < end; i++) {
    int64_t frame = i / k->h, y = i % k->h;
    const char *source = k->from + (size_t)((frame * k->h0 + k->rows.first[y]) * wide) * k->bytes;
    char *target = k->to + (size_t)(i * k->w * k->c) * k->bytes;
    if (k->copy) {
      size_t pixel = (size_t)k->c * k->bytes;
      for (int64_t x = 0; x < k->w; x++) memcpy(target + (size_t)x * pixel, source + (size_t)k->columns.first[x] * pixel, pixel);
      continue;
    }
    const real *weight = k->rows.weight + y * k->rows.most;
    for (int64_t j = 0; j < k->rows.count[y]; j++) {
      real g = weight[j];
      const uint8_t *u = (const uint8_t *)source + j * wide;
      const real *r = (const real *)(const void *)source + (k->u8 ? 0 : j * wide);
      if (j == 0 && k->u8)
        for (int64_t x = 0; x < wide; x++) line[x] = g * u[x];
      else if (j == 0)
        for (int64_t x = 0; x < wide; x++) line[x] = g * r[x];
      else if (k->u8)
        for (int64_t x = 0; x < wide; x++) line[x] += g * u[x];
      else
        for (int64_t x = 0; x < wide; x++) line[x] += g * r[x];
    }
    for (int64_t x = 0; x < k->w; x++) {
      const real *g = k->columns.weight + x * k->columns.most;
      const real *p = line + k->columns.first[x] * k->c;
      for (int64_t c = 0; c < k->c; c++) {
        real sum = 0;
        for (int64_t j = 0; j < k->columns.count[x]; j++) sum += g[j] * p[j * k->c + c];
        if (k->u8) ((uint8_t *)target)[x * k->c + c] = (uint8_t)(pn_min64(255, (int64_t)(sum + (real)0.5)));
        else ((real *)(void *)target)[x * k->c + c] = sum;
      }
    }
  }
  pn_free(line);
  return 0;
}

int pn_image_resize(pn_tensor **out, pn_tensor *x, int64_t height, int64_t width, pn_filter filter, bool masks) {
  if (!x) return pn_fail("resize: expected a picture, got nothing");
  char shape[128];
  pn_format_shape(shape, sizeof shape, x->n_dims, x->shape);
  if (x->n_dims < 2 || x->n_dims > 4)
    return pn_fail("resize: expected a mask (H,W), an image (H,W,C) or frames (T,H,W,C), got shape %s", shape);
  if (x->dtype != PN_U8 && x->dtype != PN_REAL_DTYPE)
    return pn_fail("resize: expected element type u8 or %s, got %s", pn_dtype_name(PN_REAL_DTYPE), pn_dtype_name(x->dtype));
  if (pn_device_of(x) != PN_CPU) return pn_fail("resize: pictures live on the CPU; this one is on device %d", pn_device_of(x));
  if (height < 1 || width < 1 || height > 65536 || width > 65536)
    return pn_fail("resize: the new size must be 1..65536, got %lld x %lld (height x width)", (long long)height, (long long)width);
  if (filter != PN_AREA && filter != PN_BILINEAR && filter != PN_NEAREST)
    return pn_fail("resize: unknown filter %d; there are area, bilinear and nearest", (int)filter);
  bool leading = x->n_dims == 4 || (x->n_dims == 3 && masks);
  const int64_t *s = x->shape + leading;
  bool channels = x->n_dims - leading == 3;
  resizing k = { .h0 = s[0], .w0 = s[1], .h = height, .w = width, .c = channels ? s[2] : 1 };
  if (k.h0 < 1 || k.w0 < 1) return pn_fail("resize: the picture is empty (shape %s)", shape);
  k.u8 = x->dtype == PN_U8;
  k.copy = filter == PN_NEAREST;
  k.bytes = (size_t)pn_dtype_bytes(x->dtype);
  int64_t to[4], n = leading ? x->shape[0] : 1;
  memcpy(to, x->shape, (size_t)x->n_dims * sizeof *to);
  to[leading] = height;
  to[leading + 1] = width;

  pn_tensor *dense = NULL, *y = NULL;
  int rc = axis_make(&k.rows, k.h0, height, filter);
  if (rc == 0) {
    rc = axis_make(&k.columns, k.w0, width, filter);
    if (rc == 0) rc = pn_tensor_contiguous(&dense, x, PN_ROWS);
    if (rc == 0) rc = pn_tensor_new(&y, x->dtype, x->n_dims, to, PN_ROWS, PN_CPU);
    if (rc == 0) {
      k.from = pn_bytes_of(dense);
      k.to = pn_bytes_of(y);
      rc = pn_parallel_try(n * height, 32, resize_rows, &k);
    }
    if (rc == 0) *out = y;
    else pn_tensor_release(y);
    pn_tensor_release(dense);
    axis_free(&k.columns);
    axis_free(&k.rows);
  }
  return rc;
}
