/* internal.h: what the files of core/ share: the real type, errors, the tensor itself, threads, allocation.
** Everything here is private to core and the backends. */
#ifndef PENUMBRA_INTERNAL_H
#define PENUMBRA_INTERNAL_H
#include <stdio.h>
#include <string.h>
#include "penumbra.h"
#include "shared.h"
#ifdef __cplusplus /* the kernels of gpu/ are C++ and read this; they count no references */
typedef int pn_count;
extern "C" {
#else
#include <stdatomic.h>
typedef atomic_int pn_count;
#endif

#ifdef PN_F64_BUILD
typedef double real;
#define PN_REAL_DTYPE PN_F64
#else
typedef float real;
#define PN_REAL_DTYPE PN_F32
#endif

/* ---- errors (error.c): every failure says what, which, and the figures ------------------------------------------- */
PN_API int pn_fail(const char *format, ...)
    __attribute__((format(printf, 1, 2)));                     /* sets the message, returns -1; backends call it too */
PN_API int pn_fail_errno(const char *path, const char *doing); /* "path: cannot DOING: strerror" */
/* Tells whoever asks (pn_take_notice; the binding writes it on stderr). The same text is told once; after 64 texts no more. */
PN_API void pn_notice(const char *format, ...) __attribute__((format(printf, 1, 2)));
void pn_error_clear(void);
void pn_one_line(char *text); /* each end of a line becomes a semicolon */

/* ---- host memory that is not tensors (storage.c): counted, and part of the nth-allocation test -------------------- */
PN_API const char *pn_memory_label(void);
PN_API int pn_fail_memory(int64_t bytes, int device); /* names the label in force and the largest holders; returns -1 */
PN_API void *pn_alloc(size_t bytes);                  /* 64-byte aligned, not initialised; NULL with pn_error set */
PN_API void *pn_alloc_zero(size_t bytes);
PN_API void pn_free(void *p);
PN_API bool pn_is_dry(void); /* pn_dry_run: what is not inside a pn_parallel body, and touches much or writes what was there before,
                                asks */
static inline void pn_clear(void *p, size_t bytes) { /* to zero, but in a dry run */
  if (!pn_is_dry()) memset(p, 0, bytes);
}
int64_t pn_scratch_now(void);        /* of this thread, in a dry run: bytes from pn_alloc that are not freed yet; */
int64_t pn_scratch_most(bool reset); /* and the most they were since the last reset */

/* ---- storages (storage.c) ------------------------------------------------------------------------------------------ */
typedef struct pn_storage {
  pn_count refs;
  int device;
  size_t bytes; /* asked for */
  size_t block; /* held, a size class */
  void *data;
  struct pn_block *place; /* of the arena; NULL for small ones and on other devices */
  uint64_t id;
  uint32_t version;                   /* grows with each in-place write; backward refuses a saved tensor that changed */
  char label[64];                     /* who allocated it */
  uint64_t visited;                   /* the pass of pn_recompute that last counted its tensors, */
  int32_t seen;                       /* how many it found, */
  bool pinned;                        /* and whether someone besides backward needs it */
  struct pn_storage *next, *previous; /* the list of live ones, for reports */
} pn_storage;
PN_API PN_CHECKED int pn_storage_new(pn_storage **out, size_t bytes, int device);
PN_CHECKED int pn_storage_upload(pn_storage **out, const void *from, size_t bytes, int device); /* from the CPU; copied on return */
void pn_storage_wrote(
    pn_storage *s); /* after each write in place: its version grows, now and whenever the write is done again (capture.c) */
uint64_t pn_storage_next_id(void);
void pn_capture_leaf(struct pn_tensor *t); /* before the gradient of a leaf is set: a captured step sets it each time */
PN_API void pn_storage_retain(pn_storage *s);
PN_API void pn_storage_release(pn_storage *s);
void pn_storage_vacate(pn_storage *s); /* gives its memory back; data is NULL until it is furnished again */
PN_CHECKED int pn_storage_furnish(pn_storage *s);
static inline bool pn_is_vacant(const pn_storage *s) { return !s->data; }

/* ---- tensors (shape.c, tensor.c, node.c) -------------------------------------------------------------------------------------------- */
typedef struct pn_node pn_node; /* tape.h */

struct pn_tensor {
  pn_count refs;
  pn_storage *storage;
  int64_t offset; /* elements */
  int n_dims;
  int64_t shape[PN_MAX_DIMS], stride[PN_MAX_DIMS];
  pn_dtype dtype;
  bool is_slot;       /* made to be written by an operation; that write does not count as in-place */
  bool requires_grad; /* leaf that wants a gradient, or result of one that does */
  bool has_grid;
  double grid_stride[3], grid_centre[3];
  pn_tensor *grad;
  pn_node *node; /* owned; NULL for leaves */
  int node_output;
  uint64_t visited; /* the pass of pn_recompute that last counted its holders, */
  int32_t seen;     /* and how many it found */
};

static inline int pn_device_of(const pn_tensor *t) { return t->storage->device; }
static inline char *pn_bytes_of(const pn_tensor *t) { return (char *)t->storage->data + t->offset * pn_dtype_bytes(t->dtype); }
static inline real *pn_real_of(const pn_tensor *t) { return (real *)t->storage->data + t->offset; }
PN_API PN_CHECKED int
pn_tensor_like(pn_tensor **out,
               const pn_tensor *t); /* same shape and type; same memory order where t is dense, else the layout of its kind */
PN_API PN_CHECKED int pn_tensor_on(pn_tensor **out, pn_storage *s, pn_dtype dtype, int n_dims, const int64_t *shape,
                                   const int64_t *stride, int64_t offset);
PN_CHECKED int pn_tensor_strided(pn_tensor **out, pn_dtype dtype, int n_dims, const int64_t *shape, const int64_t *stride,
                                 int device);
PN_API PN_CHECKED int pn_check_shape(int n_dims, const int64_t *shape); /* 0..PN_MAX_DIMS, sizes >= 0, product fits */
PN_API bool pn_same_shape(const pn_tensor *a, const pn_tensor *b);
PN_API void pn_strides_of(int n_dims, const int64_t *shape, pn_layout layout, int64_t *stride);
PN_API bool pn_is_plain(const pn_tensor *t);                                              /* some order of axes makes it dense */
bool pn_strides_match(const pn_tensor *t, const int64_t *stride);                         /* of axes of one element any does */
int pn_axes_by_stride(const pn_tensor *t, int *axes);                                     /* of size > 1, largest first; how many */
PN_API int pn_format_shape(char *buffer, size_t bytes, int n_dims, const int64_t *shape); /* "1,64,16,56,56" */
/* What operations write with, on any device (copy.c). Same shape, any strides; no version changes. */
PN_API PN_CHECKED int pn_add_into(pn_tensor *to, const pn_tensor *from);  /* to += from; floating types, real on the CPU */
PN_API PN_CHECKED int pn_copy_into(pn_tensor *to, const pn_tensor *from); /* to = from; one element type */

/* ---- threads (parallel.c) ------------------------------------------------------------------------------------------ */
/* Splits 0..n-1 into contiguous ranges, one a thread, none shorter than grain (when n allows), and runs fn on each.
** Nested calls run inline. A body must not depend on where the ranges are cut. A dry run calls it on an empty range, to see
** what scratch it takes: then it must do nothing else. */
void pn_parallel(int64_t n, int64_t grain, void (*fn)(void *context, int64_t begin, int64_t end), void *context);
/* As pn_parallel, where the body can fail; the first failure's message reaches the caller's thread. */
PN_CHECKED int pn_parallel_try(int64_t n, int64_t grain, int (*fn)(void *context, int64_t begin, int64_t end), void *context);

/* ---- operations, from inside core ----------------------------------------------------------------------------------- */
PN_API PN_CHECKED int pn_apply1(pn_tensor **y, const pn_op *op, const char *args, int n_x, ...); /* one output; args as text */

/* ---- small things ---------------------------------------------------------------------------------------------------- */
#define PN_LENGTH(a) (sizeof(a) / sizeof(*(a)))
PN_SHARED int64_t pn_min64(int64_t a, int64_t b) { return a < b ? a : b; }
PN_SHARED int64_t pn_max64(int64_t a, int64_t b) { return a > b ? a : b; }
PN_SHARED int64_t pn_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#ifdef __cplusplus
}
#endif

#endif
