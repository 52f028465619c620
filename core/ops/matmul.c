/* matmul: matrix products on OpenBLAS. a (...,M,K), b (...,K,N) -> y (...,M,N); transpose_a takes a as (...,K,M), transpose_b takes b
** as (...,N,K). The axes before the last two are broadcast to each other by NumPy's rules; the gradient of an input that was broadcast is
** the sum over its uses, in row order (kernels/batches.h). Rows of adjacent elements are multiplied where they lie, whatever is between
** them; others are copied first. */
#include "../blas.h"
#include "../op.h"
#include "kernels/batches.h"

static const pn_arg args[] = {
  {"transpose_a", PN_BOOL, "false", 0, 0, NULL, "a is (...,K,M)" },
  { "transpose_b",      PN_BOOL, "false", 0, 0, NULL, "b is (...,N,K)" },
  { 0           },
};
static const char *const cases[] = { "3,4 4,5",
                                     "4,3 5,4 transpose_a=true transpose_b=true",
                                     "131,2 3,2 transpose_b=true",
                                     "2,3,4 4,5",
                                     "2,3,4,3 2,3,5,4 transpose_a=true transpose_b=true",
                                     "3,1,2,4 2,4,3",
                                     "4,2 3,2,5,2 transpose_b=true",
                                     "2,1,3,2,2 2,4,1,2,3",
                                     0 };

static int need_matrices(const pn_call *call, int i) {
  if (call->x[i]->n_dims >= 2) return 0;
  return pn_fail_shapes(call, "%s has %d axes, expected 2 or more", i ? "b" : "a", call->x[i]->n_dims);
}

static int shape(pn_call *call) {
  if (need_matrices(call, 0) || need_matrices(call, 1) || pn_need_real(call, 0) || pn_need_real(call, 1)) return -1;
  bool ta = pn_arg_int(call, "transpose_a"), tb = pn_arg_int(call, "transpose_b");
  const int n_a = call->x[0]->n_dims, n_b = call->x[1]->n_dims, n = n_a > n_b ? n_a : n_b;
  const int64_t *a = call->x[0]->shape + n_a - 2, *b = call->x[1]->shape + n_b - 2;
  if (a[!ta] != b[tb]) return pn_fail_shapes(call, "the inner sizes differ: %lld and %lld", (long long)a[!ta], (long long)b[tb]);
  int64_t y[PN_MAX_DIMS], count = 1;
  for (int d = 0; d < n - 2; d++) {
    const int64_t of_a = d < n - n_a ? 1 : call->x[0]->shape[d - (n - n_a)],
                  of_b = d < n - n_b ? 1 : call->x[1]->shape[d - (n - n_b)];
    if (of_a != of_b && of_a != 1 && of_b != 1)
      return pn_fail_shapes(call, "sizes %lld and %lld of axis %d do not broadcast", (long long)of_a, (long long)of_b, d + 1);
    y[d] = of_a == 1 ? of_b : of_a;
    count *= y[d];
  }
  y[n - 2] = a[ta];
  y[n - 1] = b[!tb];
  pn_out_dims(&call->out[0], pn_joint_dtype(call->x[0], call->x[1]), n, y);
  call->out[0].layout = PN_ROWS; /* five axes are no clip here */
  call->flops = 2.0 * (double)count * (double)a[ta] * (double)b[!tb] * (double)a[!ta];
  return 0;
}

/* t itself (retained) where its matrices are rows of adjacent elements, else a dense copy. */
static int rows_of(pn_tensor **out, pn_tensor *t) {
  const int64_t *size = t->shape + t->n_dims - 2, *stride = t->stride + t->n_dims - 2;
  if ((size[1] > 1 && stride[1] != 1) || (size[0] > 1 && stride[0] < pn_max64(size[1], 1)))
    return pn_tensor_contiguous(out, t, PN_ROWS);
  pn_tensor_retain(t);
  *out = t;
  return 0;
}

/* From one row to the next, of a matrix of so many rows and columns: what BLAS accepts where there is only one. */
static int64_t ld_of(int64_t rows, int64_t cols, int64_t stride) { return rows > 1 ? stride : cols; }

static int products(pn_tensor *y, real beta, pn_tensor *a, bool ta, pn_tensor *b, bool tb) {
  pn_batches p;
  pn_batches_of(&p, y, a, ta, b, tb);
  if (!p.k || !p.summed_count) return beta == 0 ? pn_tensor_fill(y, 0) : 0;
  const int64_t lda = ta ? ld_of(p.k, p.m, p.a[1]) : ld_of(p.m, p.k, p.a[0]);
  const int64_t ldb = tb ? ld_of(p.n, p.k, p.b[1]) : ld_of(p.k, p.n, p.b[0]), ldy = ld_of(p.m, p.n, p.y[0]);
  for (int64_t i = 0; i < p.summed_count; i++) {
    const pn_axis at = pn_axes_at(p.summed, p.n_summed, i);
    pn_gemms(p.each, p.n_each, ta, tb, p.m, p.n, p.k, 1, pn_real_of(a) + at.from, lda, pn_real_of(b) + at.with, ldb, i ? 1 : beta,
             pn_real_of(y), ldy);
  }
  return 0;
}

/* y = beta*y + op(a) op(b). */
static int multiply(pn_tensor *y, real beta, pn_tensor *a, bool ta, pn_tensor *b, bool tb) {
  pn_tensor *ra = NULL, *rb = NULL, *ry = NULL;
  if (!pn_tensor_count(y)) return 0;
  int rc = rows_of(&ra, a);
  rc = rc ? rc : rows_of(&rb, b);
  rc = rc ? rc : rows_of(&ry, y);
  rc = rc ? rc : products(ry, beta, ra, ta, rb, tb);
  if (!rc && ry != y) rc = pn_copy_into(y, ry);
  pn_tensor_release(ra);
  pn_tensor_release(rb);
  pn_tensor_release(ry);
  return rc;
}

static int forward(pn_call *call) {
  return multiply(call->y[0], 0, call->x[0], pn_arg_int(call, "transpose_a"), call->x[1], pn_arg_int(call, "transpose_b"));
}

static int backward(pn_call *call) {
  bool ta = pn_arg_int(call, "transpose_a"), tb = pn_arg_int(call, "transpose_b"), fresh;
  pn_tensor *a = call->x[0], *b = call->x[1], *dy = call->dy[0], *dx;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (dx && (ta ? multiply(dx, fresh ? 0 : 1, b, tb, dy, true) : multiply(dx, fresh ? 0 : 1, dy, false, b, !tb))) return -1;
  if (pn_call_dx(call, 1, &dx, &fresh)) return -1;
  if (dx && (tb ? multiply(dx, fresh ? 0 : 1, dy, true, a, ta) : multiply(dx, fresh ? 0 : 1, a, !ta, dy, false))) return -1;
  return 0;
}

const pn_op pn_op_matmul = {
  .name = "matmul",
  .help = "matrix products of the last two axes; those before are broadcast",
  .inputs = "a b",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
};
