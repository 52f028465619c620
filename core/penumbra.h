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

PN_API const char *pn_error(void); /* message of the last failure on this thread; "" when none */
/* What should be known though nothing failed, each text once: the oldest that nobody has taken yet. 0 when there is none. */
PN_API int pn_take_notice(char *buffer, size_t bytes);
PN_API const char *pn_version(void);     /* "0.1.0" */
PN_API const char *pn_build_info(void);  /* compiler, real type, libraries, CPU variant in use; one line */
PN_API const char *pn_cpu_variant(void); /* "plain", "avx2", "avx512", "avx512_bf16" or "amx"; PENUMBRA_CPU forces one */
PN_API int pn_set_cpu_variant(const char *name) PN_CHECKED; /* fails when this CPU cannot run it, or the name is unknown */
/* What convolutions multiply in, on a device (all CUDA devices share theirs). "f32"; "bf16": they round what they multiply to bf16
** and add in f32. On CUDA also "fp16", and "tf32", which keeps f32 but for the rounding, in matrix products too. There results in bf16
** and fp16 are of that type, and what follows keeps it; on the CPU, and for weights, statistics and losses everywhere, all that is kept stays f32. bf16 fails where the
** CPU's variant has no kernels for it (avx2, avx512; plain has the definition), and what was stays. */
PN_API int pn_set_precision(const char *name, int device) PN_CHECKED;
PN_API const char *pn_precision(int device); /* the one in force; "f64" in that build */
/* How f32 convolutions with 3 taps and stride 1 are done: "auto" (minimal filtering where that is faster), "off" (always by the
** definition: exact mode), or the outputs of a tile along t,h,w, such as "2,4,4" (2 or 4 each). Of the process. */
PN_API int pn_set_winograd(const char *how) PN_CHECKED;
PN_API const char *pn_winograd(void); /* what was set */
/* How CUDA's convolutions find their engine. "heuristic": the one that cuDNN thinks the fastest. "autotune": each new shape times all
** there are; picks are kept in a file by device and version. "plain": own kernels, by the definition, slowly. */
PN_API int pn_set_engines(const char *how) PN_CHECKED;
PN_API const char *pn_engines(void);
PN_API void pn_set_deterministic(bool on); /* false: also engines that add in an order of chance. At first true */
PN_API bool pn_deterministic(void);
PN_API int pn_set_workspace(int64_t bytes) PN_CHECKED; /* the most that an engine may take; at first 1 GiB */
PN_API int64_t pn_workspace(void);
PN_API int pn_picks(int device, char *buffer, size_t bytes) PN_CHECKED; /* the picks so far as text, a line each, cut to fit */
PN_API int pn_threads(void); /* worker threads in use; PENUMBRA_THREADS, else affinity and container limit */
PN_API int pn_cpu_quota(const char *root,
                        const char *group);  /* CPUs that a control group, or one above it, is held to; 256: none. root: where
                                                                 the tree is mounted; group: "" or "/a/b" */
PN_API int pn_set_threads(int n) PN_CHECKED; /* 1..256; results do not depend on it */
PN_API void pn_run_alone(bool on);           /* this thread leaves the worker threads to others: its operations run on it alone */
PN_API double pn_clock(void);                /* monotonic seconds */

/* ---- element types, layouts, devices ----------------------------------------------------------------------- */

typedef enum pn_dtype { PN_F32, PN_F64, PN_F16, PN_BF16, PN_I64, PN_I32, PN_U8, PN_N_DTYPES } pn_dtype;
PN_API pn_dtype pn_real(void);                    /* what operations compute in: PN_F32, or PN_F64 in the f64 build */
PN_API const char *pn_dtype_name(pn_dtype dtype); /* "f32", "f64", "f16", "bf16", "i64", "i32", "u8" */
PN_API int pn_dtype_bytes(pn_dtype dtype);

/* Memory order under unchanged axes. ROWS: last axis fastest. CHANNELS_LAST: axes N,C,T,H,W in memory order
** N,T,H,W,C (activations). FILTER: axes O,I,T,H,W in memory order T,H,W,I,O (convolution weights). */
typedef enum pn_layout { PN_ROWS, PN_CHANNELS_LAST, PN_FILTER } pn_layout;

/* A device is an int: PN_CPU, or PN_CUDA0 + k for the k-th CUDA device. */
enum { PN_CPU = 0, PN_CUDA0 = 1 };
PN_API int pn_n_devices(void); /* CUDA devices at hand; 0, with the reason in pn_error(), when there is no CUDA */
PN_API int pn_device_describe(int device, char *buffer, size_t bytes) PN_CHECKED;
PN_API int pn_device_wait(int device) PN_CHECKED; /* until all its work is done; fails with what kernels found */

/* ---- tensors: strided views over reference-counted storages ------------------------------------------------- */

typedef struct pn_tensor pn_tensor;

PN_API int pn_tensor_new(pn_tensor **out, pn_dtype dtype, int n_dims, const int64_t *shape, pn_layout layout,
                         int device) PN_CHECKED; /* memory not initialised */
PN_API void pn_tensor_retain(pn_tensor *t);
PN_API void pn_tensor_release(pn_tensor *t); /* NULL is fine */
PN_API int pn_tensor_dims(const pn_tensor *t);
PN_API int64_t pn_tensor_size(const pn_tensor *t, int axis); /* axis must be in 0..dims-1 */
PN_API int64_t pn_tensor_stride(const pn_tensor *t, int axis);
PN_API int64_t pn_tensor_count(const pn_tensor *t); /* number of elements */
PN_API pn_dtype pn_tensor_dtype(const pn_tensor *t);
PN_API int pn_tensor_device(const pn_tensor *t);
PN_API bool pn_tensor_is_dense(const pn_tensor *t, pn_layout layout);
PN_API void *pn_tensor_data(
    pn_tensor *t); /* address of element 0: host memory on PN_CPU, device memory else; writing through it bypasses autograd */
PN_API uint64_t pn_tensor_storage_id(const pn_tensor *t); /* equal for views of one storage */
PN_API uint32_t pn_tensor_version(const pn_tensor *t);    /* grows with each in-place write to its storage */
PN_API int pn_tensor_view(pn_tensor **out, pn_tensor *t, int n_dims, const int64_t *shape, const int64_t *stride, int64_t offset)
    PN_CHECKED; /* not differentiable; offset in elements from element 0 of t; refused when it leaves the storage */
PN_API int pn_tensor_slot(pn_tensor **out, pn_tensor *t, int axis, int64_t first, int64_t count)
    PN_CHECKED; /* a slice that an operation may write as its destination (concatenation in place) */
PN_API int pn_tensor_contiguous(pn_tensor **out, pn_tensor *t,
                                pn_layout layout) PN_CHECKED; /* t itself (retained) when already dense; not differentiable */
PN_API int pn_tensor_cast(pn_tensor **out, pn_tensor *t,
                          pn_dtype dtype) PN_CHECKED;                 /* new memory; round to nearest even; not differentiable */
PN_API int pn_tensor_copy(pn_tensor *to, pn_tensor *from) PN_CHECKED; /* same shape; converts the element type; any strides */
PN_API int pn_tensor_fill(pn_tensor *t, double value) PN_CHECKED;
PN_API int pn_tensor_get(pn_tensor *t, const int64_t *index, double *out) PN_CHECKED; /* one element, waits for the device */
PN_API int pn_tensor_set(pn_tensor *t, const int64_t *index, double value) PN_CHECKED;
PN_API int pn_tensor_read(pn_tensor *t, void *buffer,
                          size_t bytes) PN_CHECKED; /* elements in ROWS order, own dtype; bytes must match */
PN_API int pn_tensor_write(pn_tensor *t, const void *buffer, size_t bytes) PN_CHECKED;
PN_API int pn_tensor_to(pn_tensor **out, pn_tensor *t, int device) PN_CHECKED; /* t itself (retained) when already there */
PN_API int pn_tensor_check_finite(pn_tensor *t, int64_t *n_bad) PN_CHECKED;    /* counts NaN and infinities */
PN_API int pn_tensor_crc32c(pn_tensor *t, uint32_t *out) PN_CHECKED;           /* of the bytes in ROWS order */

/* The grid: stride and centre, in input pixels (t,h,w), of element 0 along T,H,W (METHOD 4). Operations carry it along. */
PN_API bool pn_tensor_grid(const pn_tensor *t, double *stride, double *centre); /* double[3] each; false when it has none */
PN_API void pn_tensor_set_grid(pn_tensor *t, const double *stride, const double *centre);

/* ---- captured work ---------------------------------------------------------------------------------------------
** Between begin and end, what this thread asks of the device is recorded and not done: results have memory but no values yet, and
** nothing may be read from the device or sent to it. Each launch does all of it on the same memory: the results are then new. */
typedef struct pn_graph pn_graph;
PN_API int pn_capture_begin(int device) PN_CHECKED; /* one at a time; not on the CPU */
PN_API int pn_capture_end(pn_graph **out) PN_CHECKED;
PN_API void
pn_capture_aside(bool on);          /* tensors that are made while it is on keep what is written to them before a launch: the memory
                                         of others is taken up and left as the work goes along. No effect outside a capture */
PN_API void pn_capture_abort(void); /* forgets what was recorded; nothing when none is under way */
PN_API bool pn_capturing(void);     /* this thread */
PN_API int pn_graph_launch(pn_graph *g) PN_CHECKED;
PN_API void pn_graph_free(pn_graph *g); /* NULL is fine */

/* ---- messages between threads: bytes and tensors, first in, first out ------------------------------------------
** Tensors travel by reference count: both sides see one memory. Any number of threads may send and receive. */
typedef struct pn_channel pn_channel;
typedef struct pn_message pn_message;
PN_API int pn_channel_new(pn_channel **out) PN_CHECKED;
PN_API void pn_channel_retain(pn_channel *c); /* a channel lives until all that hold it have released it */
PN_API void pn_channel_release(pn_channel *c);
PN_API int pn_channel_send(pn_channel *c, const char *bytes, int64_t n_bytes, pn_tensor *const *tensors, int n_tensors)
    PN_CHECKED; /* copies the bytes, retains the tensors; refuses what takes part in a graph, and a closed channel */
PN_API pn_message *pn_channel_receive(pn_channel *c,
                                      double seconds); /* waits so long, for ever from 1e9; NULL: time is up, or closed and empty */
PN_API int64_t pn_channel_count(pn_channel *c);        /* messages that wait */
PN_API void pn_channel_close(pn_channel *c);           /* what is inside can still be received */
PN_API bool pn_channel_closed(pn_channel *c);
PN_API const char *pn_message_bytes(const pn_message *m, int64_t *n); /* belong to the message, as its tensors do */
PN_API int pn_message_n_tensors(const pn_message *m);
PN_API pn_tensor *pn_message_tensor(const pn_message *m, int i);
PN_API void pn_message_free(pn_message *m);

/* ---- memory ------------------------------------------------------------------------------------------------- */

/* live: tensors, and on the CPU the large scratch of kernels; cached: waits for reuse; held: both; small: what of live is in blocks
** below 64 KiB */
typedef struct pn_memory {
  int64_t live_bytes, peak_bytes, cached_bytes, limit_bytes, n_live, held_bytes, peak_held_bytes, small_bytes;
} pn_memory;
PN_API int pn_memory_stats(int device, pn_memory *out) PN_CHECKED;
PN_API void pn_memory_reset_peak(int device);
typedef struct pn_process {
  int64_t peak_resident_bytes, page_faults;
} pn_process;
PN_API int
pn_process_stats(pn_process *out) PN_CHECKED; /* of the whole process, as the system counts: the faults it met without a disk */
PN_API void
pn_dry_run(bool on); /* this thread: operations run without arithmetic and without touching memory; shapes, lifetimes and
                                    accounts are those of a real run. On the CPU; values are then undefined */
PN_API void pn_memory_trim(int device);                     /* gives cached blocks back to the system */
PN_API void pn_memory_set_limit(int device, int64_t bytes); /* allocations beyond it fail; 0: none */
PN_API void pn_memory_set_label(const char *label);         /* who allocates now, for reports; "" for none; copied */
PN_API int pn_memory_holders(int device, char *buffer, size_t bytes) PN_CHECKED; /* the largest labels, a line each */
PN_API int pn_memory_labels(int device, char *buffer,
                            size_t bytes) PN_CHECKED; /* lines "label bytes", tab-separated: what tensors hold */
PN_API void pn_debug_fail_alloc(int64_t nth);         /* the nth allocation from now fails once; 0: off */
PN_API void pn_debug_emulate_amx(bool on);            /* bf16 runs the AMX kernels over tiles emulated in C, on any CPU */
PN_API void pn_debug_poison(bool on);                 /* freed tensor memory is overwritten with NaN bytes */

/* ---- operations ---------------------------------------------------------------------------------------------- */

/* INT, INT3 (t,h,w), PAD3 (t,h,w or low,high pairs, or "same"), REAL, BOOL, CHOICE (an index into a|b|c), INTS (a list) */
typedef enum pn_arg_kind { PN_INT, PN_INT3, PN_PAD3, PN_REAL, PN_BOOL, PN_CHOICE, PN_INTS } pn_arg_kind;

/* One argument of an operation. Default: text; 0 when required; "=name" takes the value of that earlier argument.
** choices: "a|b|c" for CHOICE. min..max is checked for every number of the argument (min == max: unchecked). */
typedef struct pn_arg {
  const char *name;
  pn_arg_kind kind;
  const char *def;
  double min, max;
  const char *choices;
  const char *help;
} pn_arg;

/* The value of one argument. INT,BOOL,CHOICE: i[0]; INT3: i[0..2]; PAD3: i[0..5] = t low, t high, h low, ... or same;
** REAL: f; INTS: i[0..n-1] */
typedef struct pn_value {
  int64_t i[6];
  double f;
  int32_t n;
  bool same;
} pn_value;

typedef struct pn_op pn_op;
PN_API int pn_n_ops(void);
PN_API const pn_op *pn_op_at(int index);          /* 0..pn_n_ops()-1, in the order of ops.def */
PN_API const pn_op *pn_op_find(const char *name); /* NULL when there is none */
PN_API const char *pn_op_name(const pn_op *op);
PN_API const char *pn_op_help(const pn_op *op);
PN_API const char *pn_op_inputs(const pn_op *op); /* "x weight bias?"; '?' may be NULL, "x..." one or more */
PN_API const char *pn_op_outputs(const pn_op *op);
PN_API const char *pn_op_devices(const pn_op *op);          /* "cpu" or "cpu cuda" */
PN_API const pn_arg *pn_op_arg(const pn_op *op, int index); /* NULL past the last */
PN_API const char *pn_op_case(const pn_op *op,
                              int index); /* "2,3,4,6,6 kernel=1,3,3": input shapes, then arguments; NULL past the last */
PN_API bool pn_op_differentiable(const pn_op *op);
PN_API bool pn_op_input_constant(const pn_op *op, int index); /* an input that never gets a gradient: a target, a statistic */
PN_API bool pn_op_input_real(const pn_op *op, int index);     /* an input that is of pn_real() on every device: a parameter */
PN_API bool pn_op_input_integer(const pn_op *op, int index);  /* an input that may be u8, i32 or i64 */
PN_API int pn_op_parse(const pn_op *op, const char *text,
                       pn_value *args) PN_CHECKED; /* "kernel=1,3,3 pad=same" -> args[PN_MAX_ARGS], defaults filled in */
PN_API int pn_op_defaults(const pn_op *op, const bool *given,
                          pn_value *args) PN_CHECKED; /* fills what is not given; missing ones are errors */

/* The one door of computation: checks, shapes, allocates, runs, records for backward, times, traps NaN.
** x[n_x]: inputs, NULL where optional. y[PN_MAX_OUTPUTS]: an entry that is not NULL on the way in is a destination to
** write; on the way out each of the *n_y results is a reference of the caller's (also to a destination). */
PN_API int pn_apply(const pn_op *op, pn_tensor *const *x, int n_x, const pn_value *args, pn_tensor **y, int *n_y) PN_CHECKED;

PN_API void pn_trap_nan(bool on); /* pn_apply fails on the first output that is not finite */
PN_API bool pn_trapping_nan(void);

/* What ran, while on (core/profile.c). Switching it on forgets what was. One thread profiles; what others do meanwhile is told by events
** alone. */
PN_API void pn_profile(bool on);
PN_API bool pn_profiling(void);
PN_API int pn_profile_begin(const char *name) PN_CHECKED; /* a part of the work under a name, up to its pn_profile_end; they nest */
PN_API double pn_profile_end(void);                       /* the seconds of the part, with those inside; 0 where none is open */
/* Lines "op.forward label calls seconds flops bytes shapes args device_seconds", tab-separated; seconds without those of spans inside;
** shapes and args as cases of an operation write them. A row of a part has its bare name. device_seconds: what its span took on the
** CUDA device that was used last, from its beginning to its end in the order of the stream, idle time too; 0 where there was none. */
PN_API int pn_profile_report(char *buffer, size_t bytes) PN_CHECKED;
typedef struct pn_profile_event {
  int row, thread; /* row: line of the report, from 0; thread: 0 who profiles, 1.. the pool, 1000.. others, -1 - k CUDA device k */
  bool piece;      /* a thread's share of an operation, inside that operation's own event */
  double begin, seconds; /* begin on pn_clock */
} pn_profile_event;
PN_API int64_t pn_profile_events(const pn_profile_event **out); /* how many; *out is good until the recorder is switched on again */

/* ---- gradients ----------------------------------------------------------------------------------------------- */

PN_API bool pn_recording(void);
PN_API bool pn_set_recording(bool on); /* returns what it was; per thread; no_grad = false */
PN_API bool pn_requires_grad(const pn_tensor *t);
PN_API int pn_set_requires_grad(pn_tensor *t, bool on) PN_CHECKED; /* leaves of a real element type only */
PN_API int pn_backward(pn_tensor *loss, pn_tensor *seed, bool keep_graph)
    PN_CHECKED; /* seed NULL: ones; loss is then one element. Adds into the gradients of leaves */
/* Fails where a write into t, in place, would make gradients wrong: t is a result, and history is being recorded. */
PN_API int pn_check_write(const pn_tensor *t, const char *doing) PN_CHECKED;

/* Operations of a script. It makes y of x itself, unrecorded; the tape then calls `backward` with what flowed into each y (borrowed;
** NULL: nothing) for what flows into each x that wants it (references that the caller releases; NULL: nothing). It returns 0, or -1
** after pn_fail_with. y are fresh tensors of floating types. Once nothing needs `backward` of an id any more, forgotten returns that id. */
typedef int pn_custom_backward(int64_t id, pn_tensor *const *dy, int n_y, pn_tensor **dx, int n_x);
PN_API int pn_tape_custom(const char *name, pn_tensor *const *x, int n_x, pn_tensor *const *y, int n_y,
                          pn_custom_backward *backward, int64_t id) PN_CHECKED;
PN_API int64_t pn_custom_forgotten(pn_custom_backward *backward); /* one at a time; 0: none (more) */
PN_API int pn_fail_with(const char *text);                        /* sets pn_error; -1 */

PN_API uint64_t pn_tape_mark(void); /* a moment of the recording, for pn_recompute */
PN_API int pn_recompute(pn_tensor *const *y, int n, uint64_t mark)
    PN_CHECKED; /* what was computed for y[n] since the mark, and only backward still holds, is given back; backward computes it again */
PN_API int pn_grad(pn_tensor **out, pn_tensor *t) PN_CHECKED;     /* retained; *out = NULL when there is none yet */
PN_API int pn_set_grad(pn_tensor *t, pn_tensor *grad) PN_CHECKED; /* same shape and type; NULL drops it */
PN_API int pn_detach(pn_tensor **out, pn_tensor *t) PN_CHECKED;   /* the same memory outside the graph */

/* ---- random numbers: Philox4x32-10, counter = (offset, stream), key = seed ----------------------------------- */

PN_API void pn_philox(uint64_t seed, uint64_t stream, uint64_t offset, uint32_t *out); /* uint32_t[4]; Salmon et al. 2011 */
typedef enum pn_distribution { PN_UNIFORM, PN_NORMAL, PN_BERNOULLI } pn_distribution;
/* UNIFORM in [a,b); NORMAL mean a, deviation b; BERNOULLI 1 with probability a. Element i uses counter offset + i/4
** (ROWS order), so the numbers depend on nothing else. */
PN_API int pn_random_fill(pn_tensor *t, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream,
                          uint64_t offset) PN_CHECKED;

/* ---- optimisers (core/optim.c): one step, in place --------------------------------------------------------------------
** What changes from step to step may lie in memory of the parameters' device, so that a captured step can be done again. numbers,
** u8 (n, PN_STEP_BYTES): rates and the like of each entry, from pn_sgd_set or pn_adam_set; verdict, f64 (PN_VERDICT_NUMBERS): what
** pn_grad_verdict found: the step is scaled by its factor, or left out. NULL: the numbers of the call, and every step is taken. */

enum { PN_STEP_BYTES = 64 };
/* LOSS_SCALE: the caller's; what the gradients are too large by. NORM: of all of them, without that; infinite when one is not finite:
** then no step is taken. FACTOR: what the step multiplies them by: to undo the scale, and to clip the norm. */
enum { PN_VERDICT_LOSS_SCALE, PN_VERDICT_NORM, PN_VERDICT_FACTOR, PN_VERDICT_NUMBERS };

typedef enum pn_sgd_convention { PN_SGD_TORCH, PN_SGD_CAFFE } pn_sgd_convention; /* CAFFE: the rate is inside the momentum buffer */
typedef struct pn_sgd {
  double momentum, dampening, grad_scale;
  bool nesterov;
  pn_sgd_convention convention;
  pn_tensor *numbers, *verdict;
} pn_sgd;
typedef struct pn_sgd_entry { /* buffer may be NULL without momentum; first: it holds nothing yet */
  pn_tensor *param, *grad, *buffer;
  double lr, weight_decay;
  bool first;
} pn_sgd_entry;
typedef struct pn_adam {
  double beta1, beta2, eps, grad_scale;
  bool decoupled;
  pn_tensor *numbers, *verdict;
} pn_adam;
typedef struct pn_adam_entry { /* step counts from 1 */
  pn_tensor *param, *grad, *mean, *square;
  double lr, weight_decay;
  int64_t step;
} pn_adam_entry;
PN_API int pn_optim_buffer(pn_tensor **out, pn_tensor *param) PN_CHECKED; /* zeros of the shape and memory order of a parameter */
PN_API int pn_sgd_step(const pn_sgd_entry *entries, int64_t n, const pn_sgd *how) PN_CHECKED; /* all of them, or none on failure */
PN_API int pn_adam_step(const pn_adam_entry *entries, int64_t n, const pn_adam *how) PN_CHECKED;
PN_API int pn_sgd_set(const pn_sgd_entry *entries, int64_t n, const pn_sgd *how) PN_CHECKED; /* writes how->numbers, and no more */
PN_API int pn_adam_set(const pn_adam_entry *entries, int64_t n, const pn_adam *how) PN_CHECKED;
/* sums[i] of list[i], for norms of gradients; the same for any number of threads. Waits for the device. */
PN_API int pn_sum_squares(pn_tensor *const *list, int64_t n, double *sums) PN_CHECKED;
/* On the norm of all gradients together; clip_norm 0: it is not clipped. */
PN_API int pn_grad_verdict(pn_tensor *verdict, pn_tensor *const *list, int64_t n, double clip_norm) PN_CHECKED;

/* ---- images and video (core/vision) ------------------------------------------------------------------------------
** An image is a u8 tensor (H,W,C), C = 1, 3 or 4, values 0-255; frames (T,H,W,C); a mask u8 (H,W) of object numbers, 0 the
** background; masks (T,H,W). Any strides are taken; results are dense, in ROWS order, on the CPU. Positions and sizes in pixels. */

/* Reading and writing. JPEG and PNG are told apart by content. A cut-off or damaged file is an error that names it. */
PN_API int pn_image_read(pn_tensor **out, const char *path, int channels) PN_CHECKED; /* channels 1 (luma), 3 or 4; 0: as stored */
PN_API int pn_image_size(const char *path,
                         int64_t *size) PN_CHECKED; /* int64_t[3]: height, width, channels, from the header alone */
PN_API int pn_frames_read(pn_tensor **out, const char *const *paths, int64_t n, int channels)
    PN_CHECKED; /* (T,H,W,C), threaded; channels 1, 3 or 4; frames of another size are errors that name both */
/* Masks are PNG. Palette: the indices are the object numbers. Grey (with or without alpha): the values, but where the only value
** besides 0 is the largest (0/255), it is object 1. Colour: whatever is not black is object 1. */
PN_API int pn_mask_read(pn_tensor **out, const char *path) PN_CHECKED;
PN_API int pn_masks_read(pn_tensor **out, const char *const *paths, int64_t n) PN_CHECKED;
/* (H,W): with the DAVIS palette, or as grey; (H,W,1|3|4). Written beside the path, then renamed: what stood there stays whole on failure. */
PN_API int pn_png_write(const char *path, pn_tensor *image, bool palette) PN_CHECKED;
/* (T,H,W), (T,H,W,C): a path each, by all threads. */
PN_API int pn_frames_write(const char *const *paths, int64_t n, pn_tensor *pictures, bool palette) PN_CHECKED;
PN_API void pn_davis_colour(int object, uint8_t *rgb); /* uint8_t[3]; object & 255 */

/* Decoded pictures, kept for all threads, least recently used first out; known by owner and name. Nobody writes into one. */
PN_API uint64_t pn_cache_owner(void);                             /* a new number */
PN_API pn_tensor *pn_cache_get(uint64_t owner, const char *name); /* retained; NULL when it is not there */
PN_API void pn_cache_put(uint64_t owner, const char *name, pn_tensor *t,
                         int64_t limit_bytes); /* others leave until all fit the limit; larger ones are not kept */
PN_API void pn_cache_drop(uint64_t owner);     /* all of an owner */
PN_API int64_t pn_cache_bytes(void);           /* held now, of all owners */

/* Size and colour. AREA averages what each pixel covers (an axis that grows is bilinear); BILINEAR and NEAREST are on half-pixel
** centres. 2 dims: a mask; 3: (H,W,C), or masks (T,H,W) when asked; 4: frames. Element type u8 (rounded) or real. */
typedef enum pn_filter { PN_AREA, PN_BILINEAR, PN_NEAREST } pn_filter;
PN_API int pn_image_resize(pn_tensor **out, pn_tensor *x, int64_t height, int64_t width, pn_filter filter, bool masks) PN_CHECKED;
PN_API int pn_image_flip(pn_tensor **out, pn_tensor *x, bool vertical, bool masks) PN_CHECKED; /* u8 or real, dims as above */

/* The guided filter (He, Sun & Tang 2013): values f32 (H,W) that follow the edges of guide u8 (H,W,3). radius 1..1000 pixels of its
** windows; eps, of colours in 0-1: edges weaker than its root are smoothed over. */
PN_API int pn_guided_filter(pn_tensor **out, pn_tensor *values, pn_tensor *guide, int64_t radius, double eps) PN_CHECKED;

/* Between frames and what networks read: real (1,3,T,H,W), channels-last. RGB_PM1: value/127.5 - 1; BGR_01: value/255, blue first.
** The way there is the operation frames_to_clip. */
typedef enum pn_pixel_rule { PN_RGB_PM1, PN_BGR_01 } pn_pixel_rule;
PN_API int pn_clip_to_frames(pn_tensor **out, pn_tensor *clip,
                             pn_pixel_rule rule) PN_CHECKED; /* real (1,3,T,H,W) -> u8 (T,H,W,3), rounded, clamped */
PN_API int pn_masks_to_clip(pn_tensor **out,
                            pn_tensor *masks) PN_CHECKED; /* u8 (T,H,W) or (H,W) -> real (1,1,T,H,W), 1 where any object is */
PN_API int pn_clip_to_masks(pn_tensor **out, pn_tensor *clip,
                            double threshold) PN_CHECKED; /* real (1,1,T,H,W) -> u8 (T,H,W), 1 where value > threshold */

/* Masks as shapes: any value but 0 is object; results are 0 or 1. The disk of radius r holds x*x + y*y <= r*r; outside the image is
** nothing (dilation) or object (erosion): an object that touches the border is not eaten from there. */
PN_API int pn_mask_dilate(pn_tensor **out, pn_tensor *mask, int64_t radius) PN_CHECKED; /* (H,W) or (T,H,W); radius 0..1000 */
PN_API int pn_mask_erode(pn_tensor **out, pn_tensor *mask, int64_t radius) PN_CHECKED;
PN_API int pn_mask_boundary(pn_tensor **out,
                            pn_tensor *mask) PN_CHECKED; /* the boundary map of DAVIS: differs from its E, S or SE neighbour */
PN_API int pn_mask_components(pn_tensor **labels, int64_t *n, pn_tensor *mask)
    PN_CHECKED; /* i32 (H,W), 8-connected, 1 the largest; ties: the first in reading order */
PN_API int pn_mask_largest(pn_tensor **out,
                           pn_tensor *mask) PN_CHECKED; /* the largest component alone; of (T,H,W): in each frame */
PN_API int pn_mask_box(pn_tensor *mask, int64_t *box,
                       int64_t *area) PN_CHECKED; /* int64_t[4]: top, left, bottom, right, ends excluded; all 0 when empty */
PN_API int pn_mask_select(pn_tensor **out, pn_tensor *mask, int object)
    PN_CHECKED; /* 1 where the value is object (object < 0: any but 0), else 0; (H,W) or (T,H,W) */
/* All windows of height x width of one mask: the fullest (first in reading order), and the share of positions whose filled part > threshold. */
typedef struct pn_windows {
  double best, share;
  int64_t top, left;
} pn_windows;
PN_API int pn_mask_windows(pn_windows *out, pn_tensor *mask, int64_t height, int64_t width, double threshold) PN_CHECKED;
PN_API int pn_mask_fraction(double *out, pn_tensor *mask, int64_t top, int64_t left, int64_t height, int64_t width) PN_CHECKED;

/* Pictures. The objects of mask (H,W) over an image (H,W,3): filled with strength alpha 0-1, outlined thickness pixels wide. */
PN_API int pn_overlay(pn_tensor **out, pn_tensor *image, pn_tensor *mask, double alpha, int64_t thickness) PN_CHECKED;
PN_API int pn_contact_sheet(pn_tensor **out, pn_tensor *const *images, const char *const *captions, int n, int columns,
                            int gap) PN_CHECKED; /* (H,W,1|3) each, cells of the largest; captions or an entry may be NULL */

/* Plots, as .png or .svg by the end of the path. A value that is not finite breaks its line, and on a log axis one <= 0 does. */
typedef enum pn_plot_kind { PN_PLOT_LINES, PN_PLOT_BARS } pn_plot_kind;
typedef struct pn_series {
  const char *name;
  const double *x, *y;
  int64_t n;
  const double *faint;
} pn_series; /* faint: n values drawn thin behind, or NULL */
typedef struct pn_plot {
  pn_plot_kind kind;
  const char *title, *x_label, *y_label; /* NULL or "": none */
  int width, height;                     /* pixels; 0: 960 x 540 */
  bool log_x, log_y;
  double x_min, x_max, y_min, y_max; /* NaN: from the data */
  const char *const *groups;
  int n_groups; /* bars: the name of each x; series then have n = n_groups and no x */
} pn_plot;
PN_API int pn_plot_write(const char *path, const pn_plot *plot, const pn_series *series, int n_series) PN_CHECKED;

/* ---- warps, inpainting, scenes and painted worlds (core/vision) --------------------------------------------------
** Points are (x, y) in pixels with pixel centres at integers. A map is double[6]: the output pixel (x, y) reads the input at
** (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]). Clips are u8 (T,H,W,C). */

typedef enum pn_border { PN_BORDER_REFLECT, PN_BORDER_REPLICATE, PN_BORDER_ZERO } pn_border;

/* All frames of a clip through one map to h x w, read BILINEAR or NEAREST. The map is affine, plus a thin-plate spline that is
** moves[i] at the output point points[i] (double[2 n_points] each; n_points = 0 or >= 3). Bilinear maps that shrink read a
** box-filtered pyramid. */
PN_API int pn_warp(pn_tensor **out, pn_tensor *clip, const double *map, int n_points, const double *points, const double *moves,
                   int64_t h, int64_t w, pn_filter filter, pn_border border) PN_CHECKED;
/* Coefficients (double[(n + 3) * n_values]) of the thin-plate spline through n_values values at each of n points. */
PN_API int pn_tps_fit(int n, const double *points, const double *values, int n_values, double *coefficients) PN_CHECKED;
PN_API void pn_tps_at(int n, const double *points, const double *coefficients, int n_values, double x, double y, double *out);

/* Saturation and value (HSV, 0-1) of every pixel become gain * v^gamma + offset, clamped; light is double[6]: gain, gamma,
** offset of saturation, then of value. Hue stays. x: u8 (...,3). */
PN_API int pn_relight(pn_tensor **out, pn_tensor *x, const double *light) PN_CHECKED;

/* Fills the hole (mask u8 (H,W), any value but 0) of an image u8 (H,W,3): smooth colours by push-pull, then texture copied from
** the neighbourhood (grain = 1; 0 leaves it out). */
PN_API int pn_inpaint(pn_tensor **out, pn_tensor *image, pn_tensor *hole, double grain, uint64_t seed) PN_CHECKED;

/* A scene: one annotated frame taken apart into its object and the background behind it, ready to be rendered in other poses. */
typedef struct pn_scene pn_scene;
PN_API int pn_scene_new(pn_scene **out, pn_tensor *frame, pn_tensor *mask,
                        pn_tensor *background) PN_CHECKED; /* u8 (H,W,3), (H,W), (H,W,3) */
PN_API void pn_scene_free(pn_scene *scene);
/* One frame to render. Maps lead from output pixels to pixels of the annotated frame; lights as in pn_relight. */
typedef struct pn_pose {
  double background[6], object[6];
  double background_light[6], light[6];
  double as_annotated; /* not 0: the untouched frame through the map of the background, no object pasted */
} pn_pose;
/* Renders n_frames poses into frames, u8 (K,h,w,3) or real (1,3,K,h,w) by the rule, and masks, u8 (K,h,w) or
** real (1,1,K,h,w); either may be NULL. The object also goes through a thin-plate spline: where the annotated frame has
** points[i], frame k reads points[i] + moves[k][i] (double[2] each; n_points = 0 or >= 3). */
PN_API int pn_scene_render(const pn_scene *scene, int n_frames, const pn_pose *poses, int n_points, const double *points,
                           const double *moves, pn_tensor *frames, pn_tensor *masks, pn_pixel_rule rule) PN_CHECKED;

/* As pn_png_write, but JPEG: u8 (H,W,1|3), quality 1..100. */
PN_API int pn_jpeg_write(const char *path, pn_tensor *image, int quality) PN_CHECKED;

/* A painted world by seed: a landscape with sky, hills and textured ground, u8 (H,W,3), and a creature of blended capsules with a
** patterned coat, u8 (H,W,4), alpha 0 or 255. */
PN_API int pn_paint_landscape(pn_tensor **out, int64_t h, int64_t w, uint64_t seed) PN_CHECKED;
PN_API int pn_paint_creature(pn_tensor **out, int64_t h, int64_t w, uint64_t seed) PN_CHECKED;

/* ---- files (core/formats) -------------------------------------------------------------------------------------- */

/* An archive: the named tensors of a file. The format is told by content: safetensors, npy, npz, PyTorch (before and since
** 1.6), pickled dictionaries of NumPy arrays, TensorFlow bundle (PREFIX or PREFIX.index). No code of a file ever runs. */
typedef struct pn_archive pn_archive;
PN_API int pn_archive_open(pn_archive **out, const char *path) PN_CHECKED; /* reads the list, not the tensors */
PN_API void pn_archive_close(pn_archive *a);                               /* NULL is fine */
PN_API const char *
pn_archive_format(const pn_archive *a); /* "safetensors", "npy", "npz", "pytorch", "pickle", "tensorflow bundle" */
PN_API int pn_archive_count(const pn_archive *a);
PN_API const char *
pn_archive_name(const pn_archive *a,
                int i); /* in the order of the file; NULL outside 0..count-1. The one array of an npy is "data" */
PN_API int pn_archive_find(const pn_archive *a, const char *name); /* -1 when there is none */
PN_API pn_dtype pn_archive_dtype(const pn_archive *a,
                                 int i); /* as loaded: bool becomes u8; i8, i16, u16 become i32; u32 becomes i64 */
PN_API int pn_archive_dims(const pn_archive *a, int i);
PN_API int64_t pn_archive_size(const pn_archive *a, int i, int axis);
PN_API const char *pn_archive_refusal(const pn_archive *a, int i);            /* why it cannot be loaded; NULL when it can */
PN_API bool pn_archive_crc32c(const pn_archive *a, int i, uint32_t *out);     /* of its bytes, where the file says it (bundles) */
PN_API int pn_archive_load(pn_tensor **out, pn_archive *a, int i) PN_CHECKED; /* ROWS order, on the CPU; checksums are checked */
PN_API int pn_archive_n_metadata(const pn_archive *a);
PN_API const char *pn_archive_key(const pn_archive *a, int i);
PN_API const char *pn_archive_value(const pn_archive *a, int i);
PN_API const char *pn_archive_metadata(const pn_archive *a, const char *key); /* NULL when there is none */

/* Writing: to a temporary name beside it, to disk, then renamed: the file is there whole, or as it was. */
PN_API int pn_safetensors_write(const char *path, int n, const char *const *names, pn_tensor *const *tensors, int n_metadata,
                                const char *const *keys, const char *const *values) PN_CHECKED;
PN_API int pn_npy_write(const char *path, pn_tensor *t) PN_CHECKED;

PN_API uint32_t pn_crc32c(uint32_t crc, const void *data, size_t bytes); /* 0 to start; Castagnoli, as TensorFlow and iSCSI */
PN_API int pn_sha256_file(const char *path, char *hex) PN_CHECKED;       /* char[65] */
PN_API int pn_tensor_sha256(pn_tensor *t, char *hex) PN_CHECKED;         /* of the bytes in ROWS order; char[65] */

/* ---- measures of segmentation (core/measure) -------------------------------------------------------------------
** DAVIS 2016/2017: masks and truth are u8 (T,H,W) of one shape. object < 0: any value but 0 is object; else that number alone.
** out: double[T], 0-1, a value a frame. METHOD 8; Perazzi et al. 2016. */
PN_API int pn_measure_jaccard(double *out, pn_tensor *masks, pn_tensor *truth,
                              int object) PN_CHECKED; /* intersection over union; 1 when both are empty */
PN_API int pn_measure_boundary(double *out, pn_tensor *masks, pn_tensor *truth, int object, double tolerance)
    PN_CHECKED; /* F; tolerance >= 1: pixels, below: share of the diagonal, rounded up (DAVIS: 0.008) */
typedef struct pn_statistics {
  double mean, recall, decay;
} pn_statistics;
PN_API int pn_measure_statistics(pn_statistics *out, const double *values,
                                 int64_t n) PN_CHECKED; /* of the frames that count: the first and last are already left out */

#ifdef __cplusplus
}
#endif
#endif
