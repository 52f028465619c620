/* call.c: what kernels, and those who run them, may ask of a call (op.h): its arguments, gradients and shapes, and words for what is wrong. */
#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "tape.h"

static atomic_bool trap_nan;

void pn_trap_nan(bool on) { atomic_store(&trap_nan, on); }
bool pn_trapping_nan(void) { return atomic_load(&trap_nan); }

/* ---- names of inputs -------------------------------------------------------------------------------------------------- */

bool pn_input_name(const pn_op *op, int i, char *name, size_t bytes, bool *optional) {
  const char *p = op->inputs;
  for (int k = 0;; k++) {
    p += strspn(p, " ");
    size_t n = strcspn(p, " ");
    if (!n) return false;
    bool many = n > 3 && !strncmp(p + n - 3, "...", 3);
    if (k == i || many) {
      *optional = p[n - 1] == '?' || (many && i > k);
      size_t keep = many ? n - 3 : n - (p[n - 1] == '?');
      if (many) snprintf(name, bytes, "%.*s%d", (int)keep, p, i - k + 1);
      else snprintf(name, bytes, "%.*s", (int)keep, p);
      return true;
    }
    p += n;
  }
}

int pn_fail_shapes(const pn_call *call, const char *format, ...) {
  char text[512], shapes[768] = "";
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  size_t used = 0;
  for (int i = 0; i < call->n_x && used < sizeof shapes - 1; i++) {
    char name[32] = "", shape[128];
    bool optional;
    if (!call->x[i]) continue;
    (void)pn_input_name(call->op, i, name, sizeof name, &optional);
    pn_format_shape(shape, sizeof shape, call->x[i]->n_dims, call->x[i]->shape);
    int n = snprintf(shapes + used, sizeof shapes - used, "%s%s %s", used ? "; " : "", name, shape);
    used += n > 0 ? (size_t)n : 0;
  }
  return pn_fail("%s: %s   (%s)", call->op->name, text, shapes);
}

int pn_need_dims(const pn_call *call, int i, int n_dims) {
  if (call->x[i]->n_dims == n_dims) return 0;
  char name[32] = "";
  bool optional;
  (void)pn_input_name(call->op, i, name, sizeof name, &optional);
  return pn_fail_shapes(call, "%s has %d axes, expected %d", name, call->x[i]->n_dims, n_dims);
}

bool pn_is_short(const pn_tensor *t) { return t->dtype == PN_F16 || t->dtype == PN_BF16; }
bool pn_is_integer(const pn_tensor *t) { return t->dtype == PN_U8 || t->dtype == PN_I32 || t->dtype == PN_I64; }
bool pn_takes_short(const pn_tensor *t) { return pn_device_of(t) != PN_CPU; }

int pn_need_real(const pn_call *call, int i) {
  const pn_tensor *x = call->x[i];
  const char *expected = pn_dtype_name(PN_REAL_DTYPE);
  bool takes_short = pn_takes_short(x) && !call->op->real_inputs[i];
  bool takes_integers = call->op->integer_inputs[i];
  if (x->dtype == PN_REAL_DTYPE || (takes_short && pn_is_short(x)) || (takes_integers && pn_is_integer(x))) return 0;
  char name[32] = "";
  bool optional;
  (void)pn_input_name(call->op, i, name, sizeof name, &optional);
  return pn_fail_shapes(call, "%s is %s, expected %s%s (:cast \"%s\" converts it)", name, pn_dtype_name(x->dtype), expected,
                        takes_integers ? takes_short ? ", f16, bf16, u8, i32 or i64" : ", u8, i32 or i64"
                        : takes_short  ? ", f16 or bf16"
                                       : "",
                        expected);
}

pn_dtype pn_joint_dtype(const pn_tensor *a, const pn_tensor *b) {
  if (a->dtype == b->dtype) return a->dtype;
  if (!a->n_dims != !b->n_dims) return a->n_dims ? a->dtype : b->dtype;
  return PN_REAL_DTYPE;
}

int pn_need_same_shape(const pn_call *call, int i, int j) {
  if (pn_same_shape(call->x[i], call->x[j])) return 0;
  char a[32] = "", b[32] = "";
  bool optional;
  (void)pn_input_name(call->op, i, a, sizeof a, &optional);
  (void)pn_input_name(call->op, j, b, sizeof b, &optional);
  return pn_fail_shapes(call, "%s and %s differ in shape", a, b);
}

/* ---- services ----------------------------------------------------------------------------------------------------------- */

const pn_value *pn_call_arg(const pn_call *call, const char *name) {
  for (int i = 0; call->op->args && call->op->args[i].name; i++)
    if (!strcmp(call->op->args[i].name, name)) return &call->arg[i];
  assert(!"an operation asked for an argument that it has not declared");
  abort();
}

void pn_call_save(pn_call *call, int slot, pn_tensor *t) {
  pn_tensor_release(call->saved[slot]);
  call->saved[slot] = t;
}

static pn_tensor **gradient_of(pn_tensor *x) { return x->node ? &x->node->dy[x->node_output] : &x->grad; }

int pn_call_dx(pn_call *call, int i, pn_tensor **dx, bool *fresh) {
  *dx = NULL;
  if (fresh) *fresh = false;
  if (!pn_call_wants(call, i)) return 0;
  pn_tensor **grad = gradient_of(call->x[i]);
  if (!call->x[i]->node) pn_capture_leaf(call->x[i]);
  if (!*grad) {
    if (pn_tensor_like(grad, call->x[i])) return -1;
    if (fresh) *fresh = true;
    else if (pn_tensor_fill(*grad, 0)) return -1;
  }
  *dx = *grad;
  return 0;
}

static bool overlaps_itself(const pn_tensor *t) {
  for (int d = 0; d < t->n_dims; d++)
    if (t->shape[d] > 1 && t->stride[d] == 0) return true;
  return false;
}

/* A gradient's memory is its own, so what no one has begun to add to may take another's that has done its work. */
static bool take(pn_call *call, int i, pn_tensor *view) {
  pn_tensor **grad = gradient_of(call->x[i]);
  if (*grad || !call->x[i]->node || overlaps_itself(view) || view->dtype != call->x[i]->dtype) return false;
  pn_tensor_retain(view);
  *grad = view;
  return true;
}

bool pn_call_dx_take(pn_call *call, int i) {
  return pn_call_wants(call, i) && pn_same_shape(call->x[i], call->dy[0]) && take(call, i, call->dy[0]);
}

int pn_call_dx_give(pn_call *call, int i, pn_tensor *view) {
  if (!pn_call_wants(call, i) || take(call, i, view)) return 0;
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, i, &dx, &fresh)) return -1;
  return fresh ? pn_tensor_copy(dx, view) : pn_add_into(dx, view);
}

void pn_out_like(pn_out *out, const pn_tensor *x) {
  *out = (pn_out){ .n_dims = x->n_dims, .dtype = x->dtype, .layout = PN_ROWS, .has_grid = x->has_grid };
  memcpy(out->shape, x->shape, sizeof out->shape);
  memcpy(out->grid_stride, x->grid_stride, sizeof out->grid_stride);
  memcpy(out->grid_centre, x->grid_centre, sizeof out->grid_centre);
  if (x->n_dims == 5)
    out->layout = pn_tensor_is_dense(x, PN_FILTER) && !pn_tensor_is_dense(x, PN_CHANNELS_LAST) ? PN_FILTER : PN_CHANNELS_LAST;
}

void pn_out_dims(pn_out *out, pn_dtype dtype, int n_dims, const int64_t *shape) {
  *out = (pn_out){ .n_dims = n_dims, .dtype = dtype, .layout = n_dims == 5 ? PN_CHANNELS_LAST : PN_ROWS };
  memcpy(out->shape, shape, sizeof(int64_t) * (size_t)n_dims);
}

void pn_same_pad(int64_t n, int64_t kernel, int64_t stride, int64_t dilation, int64_t *low, int64_t *high) {
  int64_t total = pn_max64((pn_ceil_div(n, stride) - 1) * stride + (kernel - 1) * dilation + 1 - n, 0);
  *low = total / 2;
  *high = total - *low;
}

void pn_resolve_pad(const pn_value *pad, const int64_t *n, const int64_t *kernel, const int64_t *stride, const int64_t *dilation,
                    int64_t *low, int64_t *high) {
  for (int d = 0; d < 3; d++) {
    if (pad->same) pn_same_pad(n[d], kernel[d], stride[d], dilation ? dilation[d] : 1, &low[d], &high[d]);
    else low[d] = pad->i[2 * d], high[d] = pad->i[2 * d + 1];
  }
}

bool pn_pixels_of(pn_pixels *out, pn_tensor *x) {
  if (x->n_dims != 5 || (x->shape[1] > 1 && x->stride[1] != 1)) return false;
  *out = (pn_pixels){ pn_real_of(x), x->shape[0],  x->shape[1],  x->shape[2],  x->shape[3],
                      x->shape[4],   x->stride[0], x->stride[2], x->stride[3], x->stride[4] };
  return true;
}

int pn_channels_last(pn_tensor **out, pn_tensor *x) {
  if (x->n_dims == 5 && (x->shape[1] <= 1 || x->stride[1] == 1)) {
    pn_tensor_retain(x);
    *out = x;
    return 0;
  }
  return pn_tensor_contiguous(out, x, PN_CHANNELS_LAST);
}
