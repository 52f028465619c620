/* penumbra.h: the whole public interface of libpenumbra, in C11.
**
** Two readers: C compilers, and lua/penumbra/ffi.lua, which hands this very text to ffi.cdef after dropping the
** lines that begin with '#' and the words PN_API and PN_CHECKED. So: no macros in declarations, no bit fields.
**
** Conventions
**   result    0, or -1 with a message for this thread in pn_error(); results leave by pointer, and are untouched on -1
**   axes      N,C,T,H,W; triples are always t,h,w as one int[3]
**   indices   0-based; shapes and strides in elements, int64_t
**   ownership whatever leaves through `T **out` belongs to the caller (pn_tensor_release); arguments are borrowed
**   text      UTF-8, NUL-terminated; never used as a format
*/
#ifndef PENUMBRA_H
#define PENUMBRA_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define PN_API __attribute__((visibility("default")))
#define PN_CHECKED __attribute__((warn_unused_result))

enum { PN_MAX_DIMS = 6, PN_MAX_INPUTS = 16, PN_MAX_OUTPUTS = 8, PN_MAX_ARGS = 12 };

/* ---- the library ------------------------------------------------------------------------------------------- */

PN_API const char *pn_error(void);           /* message of the last failure on this thread; "" when none */
PN_API const char *pn_version(void);         /* "0.1.0" */
PN_API const char *pn_build_info(void);      /* compiler, real type, libraries, CPU variant in use; one line */
PN_API const char *pn_cpu_variant(void);     /* "plain", "avx2" or "avx512"; PENUMBRA_CPU forces one */
PN_API int pn_set_cpu_variant(const char *name) PN_CHECKED; /* fails when this CPU cannot run it, or the name is unknown */
PN_API int pn_threads(void);                 /* worker threads in use; PENUMBRA_THREADS, else affinity and container limit */
PN_API int pn_set_threads(int n) PN_CHECKED; /* 1..256; results do not depend on it */
PN_API double pn_clock(void);                /* monotonic seconds */

/* ---- element types, layouts, devices ----------------------------------------------------------------------- */

typedef enum pn_dtype { PN_F32, PN_F64, PN_F16, PN_BF16, PN_I64, PN_I32, PN_U8, PN_N_DTYPES } pn_dtype;
PN_API pn_dtype pn_real(void);               /* what operations compute in: PN_F32, or PN_F64 in the f64 build */
PN_API const char *pn_dtype_name(pn_dtype dtype);          /* "f32", "f64", "f16", "bf16", "i64", "i32", "u8" */
PN_API int pn_dtype_bytes(pn_dtype dtype);

/* Memory order under unchanged axes. ROWS: last axis fastest. CHANNELS_LAST: axes N,C,T,H,W in memory order
** N,T,H,W,C (activations). FILTER: axes O,I,T,H,W in memory order T,H,W,I,O (convolution weights). */
typedef enum pn_layout { PN_ROWS, PN_CHANNELS_LAST, PN_FILTER } pn_layout;

/* A device is an int: PN_CPU, or PN_CUDA0 + k for the k-th CUDA device. */
enum { PN_CPU = 0, PN_CUDA0 = 1 };

/* ---- tensors: strided views over reference-counted storages ------------------------------------------------- */

typedef struct pn_tensor pn_tensor;

PN_API int pn_tensor_new(pn_tensor **out, pn_dtype dtype, int n_dims, const int64_t *shape, pn_layout layout, int device) PN_CHECKED; /* memory not initialised */
PN_API void pn_tensor_retain(pn_tensor *t);
PN_API void pn_tensor_release(pn_tensor *t); /* NULL is fine */
PN_API int pn_tensor_dims(const pn_tensor *t);
PN_API int64_t pn_tensor_size(const pn_tensor *t, int axis);   /* axis must be in 0..dims-1 */
PN_API int64_t pn_tensor_stride(const pn_tensor *t, int axis);
PN_API int64_t pn_tensor_count(const pn_tensor *t);            /* number of elements */
PN_API pn_dtype pn_tensor_dtype(const pn_tensor *t);
PN_API int pn_tensor_device(const pn_tensor *t);
PN_API bool pn_tensor_is_dense(const pn_tensor *t, pn_layout layout);
PN_API void *pn_tensor_data(pn_tensor *t);   /* address of element 0: host memory on PN_CPU, device memory else; writing through it bypasses autograd */
PN_API uint64_t pn_tensor_storage_id(const pn_tensor *t);      /* equal for views of one storage */
PN_API int pn_tensor_view(pn_tensor **out, pn_tensor *t, int n_dims, const int64_t *shape, const int64_t *stride, int64_t offset) PN_CHECKED; /* not differentiable; offset in elements from element 0 of t; refused when it leaves the storage */
PN_API int pn_tensor_slot(pn_tensor **out, pn_tensor *t, int axis, int64_t first, int64_t count) PN_CHECKED; /* a slice that an operation may write as its destination (concatenation in place) */
PN_API int pn_tensor_contiguous(pn_tensor **out, pn_tensor *t, pn_layout layout) PN_CHECKED; /* t itself (retained) when already dense; not differentiable */
PN_API int pn_tensor_cast(pn_tensor **out, pn_tensor *t, pn_dtype dtype) PN_CHECKED;         /* new memory; round to nearest even; not differentiable */
PN_API int pn_tensor_copy(pn_tensor *to, pn_tensor *from) PN_CHECKED;       /* same shape; converts the element type; any strides */
PN_API int pn_tensor_fill(pn_tensor *t, double value) PN_CHECKED;
PN_API int pn_tensor_get(pn_tensor *t, const int64_t *index, double *out) PN_CHECKED;        /* one element, waits for the device */
PN_API int pn_tensor_set(pn_tensor *t, const int64_t *index, double value) PN_CHECKED;
PN_API int pn_tensor_read(pn_tensor *t, void *buffer, size_t bytes) PN_CHECKED;   /* elements in ROWS order, own dtype; bytes must match */
PN_API int pn_tensor_write(pn_tensor *t, const void *buffer, size_t bytes) PN_CHECKED;
PN_API int pn_tensor_to(pn_tensor **out, pn_tensor *t, int device) PN_CHECKED;    /* t itself (retained) when already there */
PN_API int pn_tensor_check_finite(pn_tensor *t, int64_t *n_bad) PN_CHECKED;       /* counts NaN and infinities */
PN_API int pn_tensor_crc32c(pn_tensor *t, uint32_t *out) PN_CHECKED;              /* of the bytes in ROWS order */

/* The grid: stride and centre, in input pixels (t,h,w), of element 0 along T,H,W (METHOD 4). Operations carry it along. */
PN_API bool pn_tensor_grid(const pn_tensor *t, double *stride, double *centre);   /* double[3] each; false when it has none */
PN_API void pn_tensor_set_grid(pn_tensor *t, const double *stride, const double *centre);

/* ---- memory ------------------------------------------------------------------------------------------------- */

typedef struct pn_memory { int64_t live_bytes, peak_bytes, cached_bytes, limit_bytes, n_live; } pn_memory;
PN_API int pn_memory_stats(int device, pn_memory *out) PN_CHECKED;
PN_API void pn_memory_reset_peak(int device);
PN_API void pn_memory_trim(int device);                       /* gives cached blocks back to the system */
PN_API void pn_memory_set_limit(int device, int64_t bytes);   /* allocations beyond it fail; 0: none */
PN_API void pn_memory_set_label(const char *label);           /* who allocates now, for reports; "" for none; copied */
PN_API int pn_memory_holders(int device, char *buffer, size_t bytes) PN_CHECKED;  /* the largest labels, a line each */
PN_API void pn_debug_fail_alloc(int64_t nth);                 /* the nth allocation from now fails once; 0: off */
PN_API void pn_debug_poison(bool on);                         /* freed tensor memory is overwritten with NaN bytes */

/* ---- operations ---------------------------------------------------------------------------------------------- */

/* INT, INT3 (t,h,w), PAD3 (t,h,w or low,high pairs, or "same"), REAL, BOOL, CHOICE (an index into a|b|c), INTS (a list) */
typedef enum pn_arg_kind { PN_INT, PN_INT3, PN_PAD3, PN_REAL, PN_BOOL, PN_CHOICE, PN_INTS } pn_arg_kind;

/* One argument of an operation. Default: text; 0 when required; "=name" takes the value of that earlier argument.
** choices: "a|b|c" for CHOICE. min..max is checked for every number of the argument (min == max: unchecked). */
typedef struct pn_arg { const char *name; pn_arg_kind kind; const char *def; double min, max; const char *choices; const char *help; } pn_arg;

/* The value of one argument. INT,BOOL,CHOICE: i[0]; INT3: i[0..2]; PAD3: i[0..5] = t low, t high, h low, ... or same;
** REAL: f; INTS: i[0..n-1] */
typedef struct pn_value { int64_t i[6]; double f; int32_t n; bool same; } pn_value;

typedef struct pn_op pn_op;
PN_API int pn_n_ops(void);
PN_API const pn_op *pn_op_at(int index);                      /* 0..pn_n_ops()-1, in the order of ops.def */
PN_API const pn_op *pn_op_find(const char *name);             /* NULL when there is none */
PN_API const char *pn_op_name(const pn_op *op);
PN_API const char *pn_op_help(const pn_op *op);
PN_API const char *pn_op_inputs(const pn_op *op);             /* "x weight bias?"; '?' may be NULL, "x..." one or more */
PN_API const char *pn_op_outputs(const pn_op *op);
PN_API const char *pn_op_devices(const pn_op *op);            /* "cpu" or "cpu cuda" */
PN_API const pn_arg *pn_op_arg(const pn_op *op, int index);   /* NULL past the last */
PN_API const char *pn_op_case(const pn_op *op, int index);    /* "2,3,4,6,6 kernel=1,3,3": input shapes, then arguments; NULL past the last */
PN_API bool pn_op_differentiable(const pn_op *op);
PN_API int pn_op_parse(const pn_op *op, const char *text, pn_value *args) PN_CHECKED; /* "kernel=1,3,3 pad=same" -> args[PN_MAX_ARGS], defaults filled in */
PN_API int pn_op_defaults(const pn_op *op, const bool *given, pn_value *args) PN_CHECKED; /* fills what is not given; missing ones are errors */

/* The one door of computation: checks, shapes, allocates, runs, records for backward, times, traps NaN.
** x[n_x]: inputs, NULL where optional. y[PN_MAX_OUTPUTS]: an entry that is not NULL on the way in is a destination to
** write; on the way out each of the *n_y results is a reference of the caller's (also to a destination). */
PN_API int pn_apply(const pn_op *op, pn_tensor *const *x, int n_x, const pn_value *args, pn_tensor **y, int *n_y) PN_CHECKED;

PN_API void pn_trap_nan(bool on);                             /* pn_apply fails on the first output that is not finite */
PN_API bool pn_trapping_nan(void);

/* Time by operation and label, while on. */
PN_API void pn_profile(bool on);
PN_API int pn_profile_report(char *buffer, size_t bytes) PN_CHECKED; /* lines "op.forward label calls seconds flops bytes", tab-separated */

/* ---- gradients ----------------------------------------------------------------------------------------------- */

PN_API bool pn_recording(void);
PN_API bool pn_set_recording(bool on);                        /* returns what it was; per thread; no_grad = false */
PN_API bool pn_requires_grad(const pn_tensor *t);
PN_API int pn_set_requires_grad(pn_tensor *t, bool on) PN_CHECKED; /* leaves of a real element type only */
PN_API int pn_backward(pn_tensor *loss, pn_tensor *seed, bool keep_graph) PN_CHECKED; /* seed NULL: ones; loss is then one element. Adds into the gradients of leaves */
PN_API int pn_grad(pn_tensor **out, pn_tensor *t) PN_CHECKED; /* retained; *out = NULL when there is none yet */
PN_API int pn_set_grad(pn_tensor *t, pn_tensor *grad) PN_CHECKED; /* same shape and type; NULL drops it */
PN_API int pn_detach(pn_tensor **out, pn_tensor *t) PN_CHECKED;   /* the same memory outside the graph */

/* ---- random numbers: Philox4x32-10, counter = (offset, stream), key = seed ----------------------------------- */

PN_API void pn_philox(uint64_t seed, uint64_t stream, uint64_t offset, uint32_t *out); /* uint32_t[4]; Salmon et al. 2011 */
typedef enum pn_distribution { PN_UNIFORM, PN_NORMAL, PN_BERNOULLI } pn_distribution;
/* UNIFORM in [a,b); NORMAL mean a, deviation b; BERNOULLI 1 with probability a. Element i uses counter offset + i/4
** (ROWS order), so the numbers depend on nothing else. */
PN_API int pn_random_fill(pn_tensor *t, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream, uint64_t offset) PN_CHECKED;

/* ---- optimisers (core/optim.c): one step on one parameter, in place ------------------------------------------------ */

typedef enum pn_sgd_convention { PN_SGD_TORCH, PN_SGD_CAFFE } pn_sgd_convention; /* CAFFE: the rate is inside the momentum buffer */
typedef struct pn_sgd { double lr, momentum, dampening, weight_decay, grad_scale; bool nesterov, first; pn_sgd_convention convention; } pn_sgd; /* first: the buffer holds nothing yet */
typedef struct pn_adam { double lr, beta1, beta2, eps, weight_decay, grad_scale; int64_t step; bool decoupled; } pn_adam; /* step counts from 1 */
PN_API int pn_optim_buffer(pn_tensor **out, pn_tensor *param) PN_CHECKED; /* zeros of the shape and memory order of a parameter */
PN_API int pn_sgd_step(pn_tensor *param, pn_tensor *grad, pn_tensor *buffer, const pn_sgd *how) PN_CHECKED; /* buffer may be NULL without momentum */
PN_API int pn_adam_step(pn_tensor *param, pn_tensor *grad, pn_tensor *mean, pn_tensor *square, const pn_adam *how) PN_CHECKED;
PN_API int pn_sum_squares(pn_tensor *t, double *out) PN_CHECKED;          /* for norms of gradients; the same for any number of threads */

/* ---- images and video (core/vision). u8 tensors (H,W,C), C = 1, 3 or 4, values 0-255 ---------------------------- */
/* ---- files (core/formats) -------------------------------------------------------------------------------------- */
/* ---- measures of segmentation (core/measure) ------------------------------------------------------------------- */

#ifdef __cplusplus
}
#endif
#endif
