/* batches.c: see batches.h. */
#include "kernels/batches.h"

/* Strides of the last two axes of t, exchanged where it is turned. The elements of a row are adjacent where there is but one. */
static void matrix_of(int64_t *stride, const pn_tensor *t, bool turned) {
  const int last = t->n_dims - 1;
  stride[turned] = t->stride[last - 1];
  stride[!turned] = t->shape[last] > 1 ? t->stride[last] : 1;
}

/* The size of axis d of n, counted as all tensors share them, and its stride in t: 0 where t has it not. */
static int64_t size_at(const pn_tensor *t, int n, int d, int64_t *stride) {
  const int lead = n - t->n_dims;
  const int64_t size = d < lead ? 1 : t->shape[d - lead];
  *stride = size == 1 ? 0 : t->stride[d - lead];
  return size;
}

static int64_t count_of(const pn_axis *a, int n) {
  int64_t count = 1;
  for (int i = 0; i < n; i++) count *= a[i].size;
  return count;
}

static bool fits(int64_t size, int64_t times) { return size && times <= INT32_MAX / size; } /* BLAS counts in int */

/* Is the axis n more of what has this stride? */
static bool continues(int64_t step, int64_t n, int64_t stride) { return step > 0 && step == n * stride; }

static void fold(pn_batches *p) {
  for (; p->n_each; p->n_each--) {
    const pn_axis *x = &p->each[p->n_each - 1];
    if (!x->with && continues(x->from, p->m, p->a[0]) && continues(x->to, p->m, p->y[0]) && fits(p->m, x->size)) p->m *= x->size;
    else if (!x->from && continues(x->with, p->n, p->b[1]) && continues(x->to, p->n, p->y[1]) && fits(p->n, x->size))
      p->n *= x->size;
    else break;
  }
  for (; p->n_summed; p->n_summed--) {
    const pn_axis *x = &p->summed[p->n_summed - 1];
    if (!continues(x->from, p->k, p->a[1]) || !continues(x->with, p->k, p->b[0]) || !fits(p->k, x->size)) break;
    p->k *= x->size;
  }
}

void pn_batches_of(pn_batches *out, const pn_tensor *y, const pn_tensor *a, bool ta, const pn_tensor *b, bool tb) {
  int n = y->n_dims > a->n_dims ? y->n_dims : a->n_dims;
  if (b->n_dims > n) n = b->n_dims;
  *out = (pn_batches){ .m = y->shape[y->n_dims - 2], .n = y->shape[y->n_dims - 1], .k = a->shape[a->n_dims - (ta ? 2 : 1)] };
  matrix_of(out->a, a, ta);
  matrix_of(out->b, b, tb);
  matrix_of(out->y, y, false);
  for (int d = 0; d < n - 2; d++) {
    pn_axis x;
    const int64_t of_a = size_at(a, n, d, &x.from), of_b = size_at(b, n, d, &x.with), of_y = size_at(y, n, d, &x.to);
    x.size = of_y != 1 ? of_y : of_a != 1 ? of_a : of_b;
    if (x.size == 1) continue;
    if (of_y != 1) out->each[out->n_each++] = x;
    else out->summed[out->n_summed++] = x;
  }
  out->n_each = pn_axes_merged(out->each, out->n_each);
  out->n_summed = pn_axes_merged(out->summed, out->n_summed);
  fold(out);
  out->each_count = count_of(out->each, out->n_each);
  out->summed_count = count_of(out->summed, out->n_summed);
}
