/* measure.c: how good masks are: region similarity J, contour accuracy F, and their statistics over a sequence.
** Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, as the code of the
** DAVIS release computes them (METHOD 8). Shapes: masks and truth u8 (T,H,W); results double[T] in 0-1. Each frame is judged alone, so
** the result does not depend on the threads. F counts the boundary pixels that lie within a disk of the other boundary, which is
** what dilating the other boundary gives, but looks only at the boundary's own pixels. */
#include <math.h>
#include "../vision/picture.h"

typedef struct judging {
  const uint8_t *masks, *truth;
  double *out;
  int64_t h, w, radius;
  int object;
} judging;

static int jaccard_range(void *context, int64_t begin, int64_t end) {
  const judging *k = context;
  pn_bits a = { 0 }, b = { 0 };
  int rc = pn_bits_new(&a, k->h, k->w);
  if (rc == 0) rc = pn_bits_new(&b, k->h, k->w);
  for (int64_t i = begin; i < end && rc == 0; i++) {
    pn_bits_pack(&a, k->masks + i * k->h * k->w, k->object);
    pn_bits_pack(&b, k->truth + i * k->h * k->w, k->object);
    int64_t both = 0, either = 0;
    for (int64_t j = 0; j < a.h * a.words; j++) {
      both += __builtin_popcountll(a.row[j] & b.row[j]);
      either += __builtin_popcountll(a.row[j] | b.row[j]);
    }
    k->out[i] = either ? (double)both / (double)either : 1;
  }
  pn_bits_free(&a);
  pn_bits_free(&b);
  return rc;
}

static int boundary_range(void *context, int64_t begin, int64_t end) {
  const judging *k = context;
  pn_bits mask = { 0 }, a = { 0 }, b = { 0 };
  int rc = pn_bits_new(&mask, k->h, k->w);
  if (rc == 0) rc = pn_bits_new(&a, k->h, k->w);
  if (rc == 0) rc = pn_bits_new(&b, k->h, k->w);
  for (int64_t i = begin; i < end && rc == 0; i++) {
    pn_bits_pack(&mask, k->masks + i * k->h * k->w, k->object);
    pn_bits_boundary(&a, &mask);
    pn_bits_pack(&mask, k->truth + i * k->h * k->w, k->object);
    pn_bits_boundary(&b, &mask);
    int64_t n_a = pn_bits_count(&a), n_b = pn_bits_count(&b);
    if (n_a == 0 || n_b == 0) {
      k->out[i] = n_a == n_b;
      continue;
    }
    double precision = (double)pn_bits_near(&a, &b, k->radius) / (double)n_a;
    double recall = (double)pn_bits_near(&b, &a, k->radius) / (double)n_b;
    k->out[i] = precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
  }
  pn_bits_free(&mask);
  pn_bits_free(&a);
  pn_bits_free(&b);
  return rc;
}

static int judge(double *out, pn_tensor *masks, pn_tensor *truth, int object, double tolerance, bool boundary) {
  const char *who = boundary ? "boundary measure" : "jaccard";
  if (object > 255) return pn_fail("%s: object numbers go to 255, got %d", who, object);
  pn_picture a, b;
  if (pn_picture_of(&a, masks, PN_IS_MASKS, who) != 0) return -1;
  if (pn_picture_of(&b, truth, PN_IS_MASKS, who) != 0) {
    pn_tensor_release(a.held);
    return -1;
  }
  int rc = 0;
  if (a.n != b.n || a.h != b.h || a.w != b.w)
    rc = pn_fail("%s: the masks are %lld of %lld x %lld (frames of height x width), the truth %lld of %lld x %lld", who,
                 (long long)a.n, (long long)a.h, (long long)a.w, (long long)b.n, (long long)b.h, (long long)b.w);
  if (rc == 0) {
    judging k = { .masks = a.data, .truth = b.data, .out = out, .h = a.h, .w = a.w, .object = object };
    double diagonal = sqrt((double)(a.h * a.h + a.w * a.w));
    k.radius = (int64_t)ceil(tolerance >= 1 ? tolerance : tolerance * diagonal);
    rc = pn_parallel_try(a.n, 1, boundary ? boundary_range : jaccard_range, &k);
  }
  pn_tensor_release(b.held);
  pn_tensor_release(a.held);
  return rc;
}

int pn_measure_jaccard(double *out, pn_tensor *masks, pn_tensor *truth, int object) {
  return judge(out, masks, truth, object, 0, false);
}

int pn_measure_boundary(double *out, pn_tensor *masks, pn_tensor *truth, int object, double tolerance) {
  if (!(tolerance >= 0 && tolerance <= 10000))
    return pn_fail("boundary measure: tolerance must be 0..10000 pixels, or a share of the diagonal below 1; got %g", tolerance);
  return judge(out, masks, truth, object, tolerance, true);
}

int pn_measure_statistics(pn_statistics *out, const double *values, int64_t n) {
  if (!values || n < 1) return pn_fail("statistics: nothing to average: no frame is left to score");
  double sum = 0;
  int64_t n_good = 0, cut[5];
  for (int64_t i = 0; i < n; i++) {
    sum += values[i];
    n_good += values[i] > 0.5;
  }
  /* Four bins that share their ends, cut where numpy's round(linspace(1, n, 5) + 1e-10) - 1 cuts. */
  for (int k = 0; k < 5; k++) cut[k] = (int64_t)floor(1 + (double)(n - 1) * k / 4 + 1e-10 + 0.5) - 1;
  double quarter[2];
  for (int k = 0; k < 2; k++) {
    int64_t first = cut[k ? 3 : 0], last = cut[k ? 4 : 1];
    double part = 0;
    for (int64_t i = first; i <= last; i++) part += values[i];
    quarter[k] = part / (double)(last - first + 1);
  }
  *out = (pn_statistics){ .mean = sum / (double)n, .recall = (double)n_good / (double)n, .decay = quarter[0] - quarter[1] };
  return 0;
}
