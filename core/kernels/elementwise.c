/* elementwise.c: what all operations of one or two inputs share. See elementwise.h. */
#include "kernels/elementwise.h"
#include <string.h>
#include "kernels/reduce.h"

/* ---- one input ----------------------------------------------------------------------------------------------------- */

int pn_unary_shape(pn_call *call) {
  if (pn_need_real(call, 0)) return -1;
  pn_out_like(&call->out[0], call->x[0]);
  return 0;
}

pn_unary pn_unary_numbers(const pn_call *call) {
  pn_unary k = { .fresh = true };
  const pn_arg *arg = call->op->args;
  if (arg && arg[0].name) {
    k.a = (real)call->arg[0].f;
    if (arg[1].name) k.b = (real)call->arg[1].f;
  }
  return k;
}

int pn_unary_forward(pn_call *call, pn_run run) {
  pn_unary k = pn_unary_numbers(call);
  pn_tensor *y = call->y[0];
  pn_loop loop;
  pn_loop_start(&loop, y->n_dims, y->shape);
  pn_loop_add(&loop, y);
  pn_loop_add(&loop, call->x[0]);
  pn_loop_plan(&loop);
  pn_loop_all(&loop, run, &k);
  return 0;
}

int pn_unary_backward(pn_call *call, pn_run run) {
  pn_unary k = pn_unary_numbers(call);
  pn_tensor *dx;
  if (pn_call_dx(call, 0, &dx, &k.fresh)) return -1;
  if (!dx) return 0;
  pn_loop loop;
  pn_loop_start(&loop, dx->n_dims, dx->shape);
  pn_loop_add(&loop, dx);
  pn_loop_add(&loop, call->dy[0]);
  pn_loop_add(&loop, call->x[0]);
  pn_loop_plan(&loop);
  pn_loop_all(&loop, run, &k);
  return 0;
}

/* ---- two inputs ---------------------------------------------------------------------------------------------------- */

int pn_broadcast_shape(pn_call *call, pn_dtype dtype) {
  int n = 0;
  int64_t shape[PN_MAX_DIMS];
  for (int i = 0; i < call->n_x; i++) n = call->x[i]->n_dims > n ? call->x[i]->n_dims : n;
  for (int d = 0; d < n; d++) {
    shape[d] = 1;
    for (int i = 0; i < call->n_x; i++) {
      const int at = d - (n - call->x[i]->n_dims);
      const int64_t size = at < 0 ? 1 : call->x[i]->shape[at];
      if (shape[d] != size && shape[d] != 1 && size != 1) {
        return pn_fail_shapes(call, "sizes %lld and %lld of axis %d do not broadcast", (long long)shape[d], (long long)size, d + 1);
      }
      if (size != 1) shape[d] = size;
    }
  }
  const pn_tensor *like = NULL;
  for (int i = 0; i < call->n_x; i++) {
    const pn_tensor *x = call->x[i];
    bool fits = x->n_dims == n && !memcmp(x->shape, shape, (size_t)n * sizeof *shape);
    if (fits && (!like || (x->has_grid && !like->has_grid))) like = x;
  }
  pn_out *out = &call->out[0];
  if (like) pn_out_like(out, like);
  else pn_out_dims(out, dtype, n, shape);
  out->dtype = dtype;
  return 0;
}

int pn_binary_shape(pn_call *call) {
  if (pn_need_real(call, 0) || pn_need_real(call, 1)) return -1;
  const pn_tensor *a = call->x[0], *b = call->x[1];
  return pn_broadcast_shape(call, pn_is_integer(a) || pn_is_integer(b) ? PN_REAL_DTYPE : pn_joint_dtype(a, b));
}

static void map_two(pn_call *call, pn_run run, void *context) {
  pn_tensor *y = call->y[0];
  pn_loop loop;
  pn_loop_start(&loop, y->n_dims, y->shape);
  pn_loop_add(&loop, y);
  pn_loop_add(&loop, call->x[0]);
  pn_loop_add(&loop, call->x[1]);
  pn_loop_plan(&loop);
  pn_loop_all(&loop, run, context);
}

int pn_binary_forward(pn_call *call, pn_run run) {
  map_two(call, run, NULL);
  return 0;
}

pn_compared pn_compared_of(const pn_call *call) {
  const pn_tensor *a = call->x[0], *b = call->x[1];
  return (pn_compared){ a->dtype, b->dtype, pn_is_integer(a) && pn_is_integer(b) };
}

int pn_comparison_forward(pn_call *call, pn_run run) {
  pn_compared of = pn_compared_of(call);
  map_two(call, run, &of);
  return 0;
}

static void slope(pn_call *call, pn_tensor *to, bool fresh, pn_run run) {
  pn_loop loop;
  pn_loop_start(&loop, to->n_dims, to->shape);
  pn_loop_add(&loop, to);
  pn_loop_add(&loop, call->dy[0]);
  pn_loop_add(&loop, call->x[0]);
  pn_loop_add(&loop, call->x[1]);
  pn_loop_plan(&loop);
  pn_sloped k = { fresh, call->x[0]->dtype };
  pn_loop_all(&loop, run, &k);
}

int pn_broadcast_backward(pn_call *call, int i, pn_run run) {
  pn_tensor *dx, *full;
  bool fresh;
  if (pn_call_dx(call, i, &dx, &fresh)) return -1;
  if (!dx) return 0;
  if (pn_same_shape(dx, call->dy[0])) {
    slope(call, dx, fresh, run);
    return 0;
  }
  /* a broadcast input gathers the gradients of all its uses */
  if (pn_tensor_like(&full, call->dy[0])) return -1;
  slope(call, full, true, run);
  int rc = pn_sum_into(dx, full, 1, fresh);
  pn_tensor_release(full);
  return rc;
}

int pn_binary_backward(pn_call *call, pn_run run_a, pn_run run_b) {
  return pn_broadcast_backward(call, 0, run_a) || pn_broadcast_backward(call, 1, run_b) ? -1 : 0;
}

static int gather(pn_call *call, int i, double factor) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, i, &dx, &fresh)) return -1;
  return dx ? pn_sum_into(dx, call->dy[0], factor, fresh) : 0;
}

int pn_binary_pass_on(pn_call *call, double sign) {
  if (pn_call_wants(call, 1) && gather(call, 1, sign)) return -1;
  if (!pn_call_wants(call, 0)) return 0;
  return pn_same_shape(call->x[0], call->dy[0]) ? pn_call_dx_give(call, 0, call->dy[0]) : gather(call, 0, 1);
}
