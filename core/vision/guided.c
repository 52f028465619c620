/* guided.c: the guided filter (He, Sun & Tang, "Guided Image Filtering", 2013, section 3.5: a guide in colour): values follow the
** edges of a picture.
**
** In each window of (2r+1)^2 pixels, cut at the border, the values p are fitted by a plane over the colours I in 0-1:
**   a = (cov(I) + eps)^-1 cov(I, p),    b = mean(p) - a . mean(I)
** and a pixel's value is a . I + b by the mean a and b of the windows that hold it. Sums are in double and slide: a row comes, a row
** goes. Bands of rows begin anew, of one height however many threads there are, so the result is the same for any number. */
#include <string.h>
#include "picture.h"

enum { BAND = 64, N_MOMENTS = 13, N_PLANE = 4 }; /* moments: I (3), I I^T (6), p, I p (3); plane: a (3), b */

typedef struct filter {
  const uint8_t *guide; /* (h,w,3) */
  const float *from;    /* (h,w) */
  float *plane, *to;    /* (N_PLANE,h,w), (h,w) */
  int64_t h, w, radius;
  double eps;
} filter;

/* Adds row y to the sums of columns, or takes it away. */
typedef void (*add_row)(const filter *f, double *columns, int64_t y, double sign);

static void add_moments(const filter *f, double *columns, int64_t y, double sign) {
  const uint8_t *guide = f->guide + y * f->w * 3;
  const float *from = f->from + y * f->w;
  for (int64_t x = 0; x < f->w; x++) {
    double *to = columns + x * N_MOMENTS, red = guide[3 * x], green = guide[3 * x + 1], blue = guide[3 * x + 2];
    double p = sign * from[x];
    to[0] += sign * red, to[1] += sign * green, to[2] += sign * blue;
    to[3] += sign * red * red, to[4] += sign * red * green, to[5] += sign * red * blue;
    to[6] += sign * green * green, to[7] += sign * green * blue, to[8] += sign * blue * blue;
    to[9] += p, to[10] += p * red, to[11] += p * green, to[12] += p * blue;
  }
}

static void add_planes(const filter *f, double *columns, int64_t y, double sign) {
  for (int k = 0; k < N_PLANE; k++) {
    const float *from = f->plane + (k * f->h + y) * f->w;
    for (int64_t x = 0; x < f->w; x++) columns[x * N_PLANE + k] += sign * from[x];
  }
}

/* The plane of a window from its moments, n pixels. Colours are bytes here, so eps is for those. */
static void fit(double *plane, const double *sum, double n, double eps) {
  double m[N_MOMENTS];
  for (int k = 0; k < N_MOMENTS; k++) m[k] = sum[k] / n;
  double rr = m[3] - m[0] * m[0] + eps, rg = m[4] - m[0] * m[1], rb = m[5] - m[0] * m[2];
  double gg = m[6] - m[1] * m[1] + eps, gb = m[7] - m[1] * m[2], bb = m[8] - m[2] * m[2] + eps;
  double r = m[10] - m[9] * m[0], g = m[11] - m[9] * m[1], b = m[12] - m[9] * m[2];
  double c0 = gg * bb - gb * gb, c1 = gb * rb - rg * bb, c2 = rg * gb - gg * rb; /* cofactors of the first row */
  double det = rr * c0 + rg * c1 + rb * c2;
  plane[0] = (c0 * r + c1 * g + c2 * b) / det;
  plane[1] = (c1 * r + (rr * bb - rb * rb) * g + (rb * rg - rr * gb) * b) / det;
  plane[2] = (c2 * r + (rb * rg - rr * gb) * g + (rr * gg - rg * rg) * b) / det;
  plane[3] = m[9] - plane[0] * m[0] - plane[1] * m[1] - plane[2] * m[2];
}

static void fit_pixel(const filter *f, const double *sum, double n, int64_t y, int64_t x) {
  double plane[N_PLANE];
  fit(plane, sum, n, f->eps * 255 * 255);
  for (int k = 0; k < N_PLANE; k++) f->plane[(k * f->h + y) * f->w + x] = (float)plane[k];
}

static void value_of_pixel(const filter *f, const double *sum, double n, int64_t y, int64_t x) {
  const uint8_t *guide = f->guide + (y * f->w + x) * 3;
  f->to[y * f->w + x] = (float)((sum[0] * guide[0] + sum[1] * guide[1] + sum[2] * guide[2] + sum[3]) / n);
}

/* Visits the pixels of bands of rows with the sums of their windows. */
static int slide(const filter *f, int64_t begin, int64_t end, int n_sums, add_row add,
                 void (*visit)(const filter *f, const double *sum, double n, int64_t y, int64_t x)) {
  double *columns = pn_alloc((size_t)(f->w * n_sums) * sizeof *columns), sum[N_MOMENTS];
  if (!columns) return -1;
  for (int64_t first = begin * BAND; first < pn_min64(end * BAND, f->h); first += BAND) {
    memset(columns, 0, (size_t)(f->w * n_sums) * sizeof *columns);
    for (int64_t y = pn_max64(0, first - f->radius); y < pn_min64(f->h, first + f->radius); y++) add(f, columns, y, 1);
    for (int64_t y = first; y < pn_min64(first + BAND, f->h); y++) {
      if (y + f->radius < f->h) add(f, columns, y + f->radius, 1);
      if (y > first && y - f->radius > 0) add(f, columns, y - f->radius - 1, -1);
      int64_t rows = pn_min64(f->h - 1, y + f->radius) - pn_max64(0, y - f->radius) + 1;
      memset(sum, 0, sizeof sum);
      for (int64_t x = 0; x < pn_min64(f->radius, f->w); x++)
        for (int k = 0; k < n_sums; k++) sum[k] += columns[x * n_sums + k];
      for (int64_t x = 0; x < f->w; x++) {
        int64_t comes = x + f->radius, goes = x - f->radius - 1;
        for (int k = 0; k < n_sums && comes < f->w; k++) sum[k] += columns[comes * n_sums + k];
        for (int k = 0; k < n_sums && goes >= 0; k++) sum[k] -= columns[goes * n_sums + k];
        visit(f, sum, (double)(rows * (pn_min64(f->w - 1, comes) - pn_max64(0, goes + 1) + 1)), y, x);
      }
    }
  }
  pn_free(columns);
  return 0;
}

static int fit_bands(void *context, int64_t begin, int64_t end) {
  return slide(context, begin, end, N_MOMENTS, add_moments, fit_pixel);
}

static int smooth_bands(void *context, int64_t begin, int64_t end) {
  return slide(context, begin, end, N_PLANE, add_planes, value_of_pixel);
}

int pn_guided_filter(pn_tensor **out, pn_tensor *values, pn_tensor *guide, int64_t radius, double eps) {
  if (pn_need_image(guide, "guided_filter: guide", 3, 3)) return -1;
  int64_t h = guide->shape[0], w = guide->shape[1];
  if (values->dtype != PN_F32 || pn_device_of(values) != PN_CPU || values->n_dims != 2 || values->shape[0] != h ||
      values->shape[1] != w) {
    char shape[96];
    pn_format_shape(shape, sizeof shape, values->n_dims, values->shape);
    return pn_fail("guided_filter: values are %s (%s), expects f32 (%lld,%lld) on the CPU, as the guide",
                   pn_dtype_name(values->dtype), shape, (long long)h, (long long)w);
  }
  if (radius < 1 || radius > 1000) return pn_fail("guided_filter: radius must be 1..1000 pixels, got %lld", (long long)radius);
  if (!(eps > 0 && eps <= 1e6)) return pn_fail("guided_filter: eps must be above 0, got %g", eps);
  pn_tensor *from = NULL, *picture = NULL, *to = NULL;
  float *plane = pn_alloc((size_t)(N_PLANE * h * w) * sizeof *plane);
  int rc = plane ? pn_tensor_contiguous(&from, values, PN_ROWS) : -1;
  if (rc == 0) rc = pn_tensor_contiguous(&picture, guide, PN_ROWS);
  if (rc == 0) rc = pn_tensor_new(&to, PN_F32, 2, values->shape, PN_ROWS, PN_CPU);
  if (rc == 0) {
    filter f = { .guide = (const uint8_t *)pn_bytes_of(picture),
                 .from = (const float *)pn_bytes_of(from),
                 .plane = plane,
                 .to = (float *)pn_bytes_of(to),
                 .h = h,
                 .w = w,
                 .radius = radius,
                 .eps = eps };
    rc = pn_parallel_try(pn_ceil_div(h, BAND), 1, fit_bands, &f);
    if (rc == 0) rc = pn_parallel_try(pn_ceil_div(h, BAND), 1, smooth_bands, &f);
  }
  if (rc == 0) *out = to;
  else pn_tensor_release(to);
  pn_tensor_release(from);
  pn_tensor_release(picture);
  pn_free(plane);
  return rc;
}
