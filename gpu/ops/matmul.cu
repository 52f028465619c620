/* matmul.cu: see core/ops/matmul.c. Matrices are multiplied as they lie; what has neither rows nor columns in one piece is copied first.
** Of 16 bits and real, the 16 bits are widened. */
#include "cublas.h"
#include "launch.h"

/* t as a matrix of `dtype`; *held is what must be released. */
static int matrix_of(pn_matrix *out, pn_tensor **held, pn_tensor *t, pn_dtype dtype) {
  *held = NULL;
  if (t->dtype != dtype) {
    if (pn_tensor_cast(held, t, dtype)) return -1;
    t = *held;
  }
  if (pn_matrix_of(out, t)) return 0;
  pn_tensor *rows;
  if (pn_tensor_contiguous(&rows, t, PN_ROWS)) return -1;
  pn_tensor_release(*held);
  *held = rows;
  (void)pn_matrix_of(out, rows);
  return 0;
}

/* Into y where cuBLAS can write it, else by way of a tensor of its own. */
static int write(pn_gpu *gpu, pn_tensor *y, pn_matrix a, pn_matrix b, bool add) {
  pn_matrix to;
  pn_tensor *made = NULL;
  if (pn_matrix_of(&to, y) && (y->dtype == a.dtype || y->dtype == PN_REAL_DTYPE)) return pn_cublas_product(gpu, to, a, b, add);
  int rc = pn_tensor_new(&made, PN_REAL_DTYPE, 2, y->shape, PN_ROWS, pn_device_of(y));
  if (!rc) (void)pn_matrix_of(&to, made);
  rc = rc ? rc : pn_cublas_product(gpu, to, a, b, false);
  rc = rc ? rc : add ? pn_add_into(y, made) : pn_tensor_copy(y, made);
  pn_tensor_release(made);
  return rc;
}

/* y = op(a) op(b), or y += it. */
static int multiply(pn_tensor *y, bool add, pn_tensor *a, bool ta, pn_tensor *b, bool tb) {
  pn_gpu *gpu = pn_gpu_of(y);
  pn_tensor *held_a = NULL, *held_b = NULL;
  pn_matrix ma, mb;
  if (!gpu) return -1;
  if (!y->shape[0] || !y->shape[1]) return 0;
  if (!a->shape[!ta]) return add ? 0 : pn_tensor_fill(y, 0);
  pn_dtype dtype = pn_joint_dtype(a, b);
  int rc = matrix_of(&ma, &held_a, a, dtype);
  rc = rc ? rc : matrix_of(&mb, &held_b, b, dtype);
  if (!rc && ta) ma = pn_matrix_turned(ma);
  if (!rc && tb) mb = pn_matrix_turned(mb);
  rc = rc ? rc : write(gpu, y, ma, mb, add);
  pn_tensor_release(held_a);
  pn_tensor_release(held_b);
  return rc;
}

static int forward(pn_call *call) {
  return multiply(call->y[0], false, call->x[0], pn_arg_int(call, "transpose_a"), call->x[1], pn_arg_int(call, "transpose_b"));
}

static int backward(pn_call *call) {
  bool ta = pn_arg_int(call, "transpose_a"), tb = pn_arg_int(call, "transpose_b"), fresh;
  pn_tensor *a = call->x[0], *b = call->x[1], *dy = call->dy[0], *dx;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (dx && (ta ? multiply(dx, !fresh, b, tb, dy, true) : multiply(dx, !fresh, dy, false, b, !tb))) return -1;
  if (pn_call_dx(call, 1, &dx, &fresh)) return -1;
  if (dx && (tb ? multiply(dx, !fresh, dy, true, a, ta) : multiply(dx, !fresh, a, !ta, dy, false))) return -1;
  return 0;
}

PN_CUDA_KERNEL(matmul, forward, backward)
