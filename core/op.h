/* op.h: what an operation is. Included by core/ops/NAME.c and by the backends (gpu/), never from outside.
**
** An operation is described once, as a constant pn_op in core/ops/NAME.c with one line in ops.def. From it come the enum,
** the Lua function with its argument checks and help, the docs row, the gradient check and the backend comparison.
**
** Contract
**   shape     fills call->out[i] (dims, shape, dtype, layout, grid) from the inputs and arguments; reports what does not fit
**   view      for operations that only re-describe memory: fills call->out[i] with stride and offset too; needs no kernels.
**             PN_NO_VIEW instead of 0: these strides do not allow it, so go on with shape and forward. Its gradient is the
**             same view of dx, unless there is a backward
**   forward   reads call->x, writes call->y; may keep what backward needs with pn_call_save
**   backward  reads call->dy, **adds** into the gradients it gets from pn_call_dx; skips inputs where it returns NULL
** Kernel argument order everywhere: outputs, inputs, arguments. Every result is independent of the number of threads.
**
** Element types
**   The CPU computes with tensors of `real`. On a CUDA device an input may also be of 16 bits (f16, bf16), but for an operation's
**   real_inputs; pn_need_real says so. There, what maps or picks elements (also max) keeps the type of its input; of two inputs the
**   result has the type of both (pn_joint_dtype): the same, else real, and a number without axes changes nothing. What adds up (sum,
**   mean, losses, statistics) gives real. A gradient has the type of its tensor. All is computed in real, whatever is stored.
**   What asks instead of computing (comparisons, the condition of where) takes tensors of u8, i32 and i64 too: integer_inputs.
*/
#ifndef PENUMBRA_OP_H
#define PENUMBRA_OP_H
#include "penumbra.h"
#include "internal.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_MAX_SAVED = 4, PN_NO_VIEW = 1 };

/* What shape() says of one output. */
typedef struct pn_out {
  int n_dims;
  int64_t shape[PN_MAX_DIMS];
  pn_dtype dtype;
  pn_layout layout;
  bool has_grid;
  double grid_stride[3], grid_centre[3];
  int64_t stride[PN_MAX_DIMS], offset; /* views only: elements, relative to element 0 of x[0] */
} pn_out;

typedef struct pn_call {
  const pn_op *op;
  const pn_value *arg;
  int n_x, n_y;
  pn_tensor *x[PN_MAX_INPUTS]; /* borrowed; NULL for an absent optional input */
  pn_tensor *y[PN_MAX_OUTPUTS];
  pn_tensor *dy[PN_MAX_OUTPUTS];  /* backward only; NULL when nothing flowed into that output */
  pn_tensor *saved[PN_MAX_SAVED]; /* owned by the call, then by its node */
  pn_out out[PN_MAX_OUTPUTS];
  bool recording; /* backward will come: save what it needs */
  bool again;     /* forward for the second time, before backward: the same results, and no other effect */
  bool is_view;   /* y[0] is x[0] described anew */
  double flops;   /* multiply-adds times two, for profiles; set by shape or forward */
} pn_call;

typedef struct pn_kernel {
  int (*forward)(pn_call *call);
  int (*backward)(pn_call *call);
} pn_kernel;

struct pn_op {
  const char *name;
  const char *help;             /* one sentence */
  const char *inputs, *outputs; /* "x weight bias?", "y"; outputs NULL means "y" */
  const pn_arg *args;           /* ends with {0} */
  const char *const *cases;     /* ends with 0; shapes of the inputs ("-" for absent), then key=value arguments. A shape may end in
                                    ":u8", ":i64" (element type), ":01" (values 0 or 1), ":12" (1 or 2), ":+" (positive), ":step" (well separated values) */
  int (*shape)(pn_call *call);
  int (*view)(pn_call *call);
  pn_kernel cpu;
  bool constant_inputs[PN_MAX_INPUTS]; /* inputs that never get a gradient (targets, statistics) */
  bool real_inputs[PN_MAX_INPUTS];     /* inputs that are `real` on every device (parameters, statistics) */
  bool integer_inputs[PN_MAX_INPUTS];  /* inputs that may be u8, i32 or i64 */
  bool lasting[PN_MAX_SAVED]; /* what is saved here is small and stays where the rest is recomputed: forward finds it again */
};

/* Which devices an operation has. CPU_GPU: a kernel for each; one that is absent is a link error. ANY: what it does is written in views
** and copies of tensors (pn_copy_into, pn_add_into), so that its one definition, under .cpu, serves every device. */
enum { CPU = 1, CPU_GPU = 3, ANY = 7 };
PN_API int pn_op_devices_of(const pn_op *op);

#define OP(name, devices) PN_OP_##name,
enum {
#include "ops.def"
  PN_N_OPS
};
#undef OP
#define OP(name, devices) extern const pn_op pn_op_##name;
#include "ops.def"
#undef OP

/* ---- services for kernels (call.c) --------------------------------------------------------------------------------------- */

/* The gradient to add into for input i, zero-filled the first time; NULL when that input wants none (then *err is 0) or on
** failure (-1). With fresh non-NULL: memory is NOT zeroed when *fresh comes back true, and the kernel must write every element. */
PN_API PN_CHECKED int pn_call_dx(pn_call *call, int i, pn_tensor **dx, bool *fresh);
static inline bool pn_call_wants(const pn_call *call, int i) { /* does input i want a gradient? */
  return call->x[i] && call->x[i]->requires_grad && !call->op->constant_inputs[i];
}
/* Offers a view of dy as the gradient of input i: taken without a copy when nothing flowed into it yet, else added. */
PN_API PN_CHECKED int pn_call_dx_give(pn_call *call, int i, pn_tensor *view);
/* Makes dy[0] itself the gradient of input i, for the kernel to write over: true where that has none yet and is no leaf. */
PN_API bool pn_call_dx_take(pn_call *call, int i);
PN_API void pn_call_save(pn_call *call, int slot, pn_tensor *t); /* takes the reference */

/* The name of the i-th input, of "x weight bias?" or "x..."; sets whether it may be absent. False past the end. */
bool pn_input_name(const pn_op *op, int i, char *name, size_t bytes, bool *optional);
/* Value of a named argument; asking for a name the operation has not is a programming error (abort in debug builds). */
PN_API const pn_value *pn_call_arg(const pn_call *call, const char *name);
static inline int64_t pn_arg_int(const pn_call *call, const char *name) { return pn_call_arg(call, name)->i[0]; }
static inline double pn_arg_real(const pn_call *call, const char *name) { return pn_call_arg(call, name)->f; }

/* Shape helpers. pn_out_like copies shape, dtype, layout and grid of x. */
PN_API void pn_out_like(pn_out *out, const pn_tensor *x);
PN_API void pn_out_dims(pn_out *out, pn_dtype dtype, int n_dims, const int64_t *shape); /* ROWS, or CHANNELS_LAST for 5 dims */
PN_API PN_CHECKED int pn_fail_shapes(const pn_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3))); /* appends "(x 1,64,16,56,56; weight ...)" */
PN_API PN_CHECKED int pn_need_dims(const pn_call *call, int i, int n_dims);
PN_API PN_CHECKED int pn_need_real(const pn_call *call, int i); /* what is computed with; see "Element types" above */
PN_API PN_CHECKED int pn_need_same_shape(const pn_call *call, int i, int j);

PN_API bool pn_is_short(const pn_tensor *t);    /* f16 or bf16? */
PN_API bool pn_is_integer(const pn_tensor *t);  /* u8, i32 or i64? */
PN_API bool pn_takes_short(const pn_tensor *t); /* does the device of t compute with those? */
PN_API pn_dtype pn_joint_dtype(const pn_tensor *a, const pn_tensor *b);

/* TF SAME: pads per axis from the input size (METHOD 4); resolves a PAD3 value to low[3], high[3]. */
PN_API void pn_same_pad(int64_t n, int64_t kernel, int64_t stride, int64_t dilation, int64_t *low, int64_t *high);
PN_API void pn_resolve_pad(const pn_value *pad, const int64_t *n, const int64_t *kernel, const int64_t *stride,
                           const int64_t *dilation, int64_t *low, int64_t *high);

/* A view of x as pixels of channels: channel stride 1, any strides over n,t,h,w. Where x is not so laid out, a dense copy. */
typedef struct pn_pixels {
  real *data;
  int64_t n, c, t, h, w, sn, st, sh, sw;
} pn_pixels;
PN_API bool pn_pixels_of(pn_pixels *out, pn_tensor *x); /* false when the channel stride is not 1 */
PN_API PN_CHECKED int pn_channels_last(pn_tensor **out,
                                       pn_tensor *x); /* x itself (retained) when its channel stride is 1, else a dense copy */

#ifdef __cplusplus
}
#endif
#endif
