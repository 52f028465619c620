/* matmul.cu: see core/ops/matmul.c. Matrices are multiplied as they lie, a batch in one call where they lie at one step; what has neither
** rows nor columns in one piece, or several steps, is copied first. Where each input is broadcast along axes of its own, there is a call
** for each place of all these axes but the longest. Of 16 bits and real, the 16 bits are widened. */
#include "cublas.h"
#include "kernels/batches.h"
#include "launch.h"

/* t, of `dtype`, as cuBLAS can read it: itself (retained), or a copy. */
static int readable(pn_tensor **out, pn_tensor *t, pn_dtype dtype) {
  pn_tensor *cast = NULL;
  pn_matrix m;
  if (t->dtype != dtype && pn_tensor_cast(&cast, t, dtype)) return -1;
  if (cast) t = cast;
  else pn_tensor_retain(t);
  if (pn_matrix_of(&m, t)) {
    *out = t;
    return 0;
  }
  const int rc = pn_tensor_contiguous(out, t, PN_ROWS);
  pn_tensor_release(t);
  return rc;
}

static pn_matrix matrix_at(const pn_tensor *t, int64_t offset, int64_t rows, int64_t cols, const int64_t *stride, int64_t step) {
  pn_matrix m = {
    pn_bytes_of(t) + offset * pn_dtype_bytes(t->dtype), t->dtype, {rows,       cols     },
          { stride[0], stride[1]},
          step
  };
  return m;
}

/* All products of p, for each place of `each` but the axis `along`, which is a batch. */
static int run(pn_gpu *gpu, const pn_batches *p, pn_tensor *y, bool add, const pn_tensor *a, const pn_tensor *b) {
  pn_axis along = { 1, 0, 0, 0 }, rest[PN_MAX_DIMS];
  int n_rest = 0, longest = 0;
  int64_t places = 1;
  for (int i = 1; i < p->n_each; i++)
    if (p->each[i].size > p->each[longest].size) longest = i;
  for (int i = 0; i < p->n_each; i++) {
    if (i == longest) along = p->each[i];
    else places *= (rest[n_rest++] = p->each[i]).size;
  }
  for (int64_t s = 0; s < p->summed_count; s++) {
    const pn_axis sum = pn_axes_at(p->summed, p->n_summed, s);
    for (int64_t r = 0; r < places; r++) {
      const pn_axis at = pn_axes_at(rest, n_rest, r);
      const pn_matrix to = matrix_at(y, at.to, p->m, p->n, p->y, along.to);
      if (pn_cublas_products(gpu, to, matrix_at(a, at.from + sum.from, p->m, p->k, p->a, along.from),
                             matrix_at(b, at.with + sum.with, p->k, p->n, p->b, along.with), along.size, add || s > 0))
        return -1;
    }
  }
  return 0;
}

/* What products of a type are added up in: cuBLAS widens 16 bits to f32, never to f64. */
static pn_dtype sum_dtype(pn_dtype dtype) { return dtype == PN_F64 ? PN_F64 : PN_F32; }

/* Into y where cuBLAS can write it, and sums are not cut short on the way; else by way of a tensor of its own. */
static int write(pn_gpu *gpu, pn_tensor *y, bool add, pn_tensor *a, bool ta, pn_tensor *b, bool tb) {
  pn_matrix m;
  pn_batches p;
  pn_tensor *made = NULL;
  pn_batches_of(&p, y, a, ta, b, tb);
  if (!p.k || !p.summed_count) return add ? 0 : pn_tensor_fill(y, 0);
  const pn_dtype sum = sum_dtype(a->dtype);
  if (pn_matrix_of(&m, y) && (y->dtype == sum || (y->dtype == a->dtype && p.summed_count == 1))) return run(gpu, &p, y, add, a, b);
  if (pn_tensor_new(&made, sum, y->n_dims, y->shape, PN_ROWS, pn_device_of(y))) return -1;
  pn_batches_of(&p, made, a, ta, b, tb);
  int rc = run(gpu, &p, made, false, a, b);
  rc = rc ? rc : add ? pn_add_into(y, made) : pn_tensor_copy(y, made);
  pn_tensor_release(made);
  return rc;
}

/* y = op(a) op(b), or y += it. */
static int multiply(pn_tensor *y, bool add, pn_tensor *a, bool ta, pn_tensor *b, bool tb) {
  pn_gpu *gpu = pn_gpu_of(y);
  pn_tensor *held_a = NULL, *held_b = NULL;
  if (!gpu) return -1;
  if (!pn_tensor_count(y)) return 0;
  if (!pn_tensor_count(a) || !pn_tensor_count(b)) return add ? 0 : pn_tensor_fill(y, 0);
  const pn_dtype dtype = pn_joint_dtype(a, b);
  int rc = readable(&held_a, a, dtype);
  rc = rc ? rc : readable(&held_b, b, dtype);
  rc = rc ? rc : write(gpu, y, add, held_a, ta, held_b, tb);
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
