/* matmul: matrix product on OpenBLAS. a (M,K), b (K,N) -> y (M,N); transpose_a takes a as (K,M), transpose_b takes b as (N,K). */
#include "../blas.h"
#include "../op.h"

static const pn_arg args[] = {
  {"transpose_a", PN_BOOL, "false", 0, 0, NULL, "a is (K,M)" },
  { "transpose_b",      PN_BOOL, "false", 0, 0, NULL, "b is (N,K)" },
  { 0           },
};
static const char *const cases[] = { "3,4 4,5", "4,3 5,4 transpose_a=true transpose_b=true", "131,2 3,2 transpose_b=true", 0 };

static int shape(pn_call *call) {
  if (pn_need_dims(call, 0, 2) || pn_need_dims(call, 1, 2) || pn_need_real(call, 0) || pn_need_real(call, 1)) return -1;
  bool ta = pn_arg_int(call, "transpose_a"), tb = pn_arg_int(call, "transpose_b");
  const int64_t *a = call->x[0]->shape, *b = call->x[1]->shape;
  if (a[!ta] != b[tb]) return pn_fail_shapes(call, "the inner sizes differ: %lld and %lld", (long long)a[!ta], (long long)b[tb]);
  pn_out_dims(&call->out[0], pn_joint_dtype(call->x[0], call->x[1]), 2, (int64_t[]){ a[ta], b[!tb] });
  call->flops = 2.0 * (double)a[ta] * (double)b[!tb] * (double)a[!ta];
  return 0;
}

/* y = beta*y + op(a) op(b), on dense rows; copies where a tensor is strided. */
static int multiply(pn_tensor *y, real beta, pn_tensor *a, bool ta, pn_tensor *b, bool tb) {
  pn_tensor *ra = NULL, *rb = NULL, *ry = NULL;
  int rc = pn_tensor_contiguous(&ra, a, PN_ROWS);
  rc = rc ? rc : pn_tensor_contiguous(&rb, b, PN_ROWS);
  rc = rc ? rc : pn_tensor_contiguous(&ry, y, PN_ROWS);
  if (!rc && y->shape[0] && y->shape[1]) {
    int64_t k = a->shape[!ta];
    if (k)
      pn_gemm(ta, tb, y->shape[0], y->shape[1], k, 1, pn_real_of(ra), a->shape[1], pn_real_of(rb), b->shape[1], beta,
              pn_real_of(ry), y->shape[1]);
    else if (beta == 0) rc = pn_tensor_fill(ry, 0);
    if (!rc && ry != y) rc = pn_tensor_copy(y, ry);
  }
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
  .help = "matrix product",
  .inputs = "a b",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
};
