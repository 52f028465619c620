/* cublaslt.cpp: the emulated cuBLASLt: matrix products by the definition, in doubles, on the stream.
**
** Strict: sizes, leading dimensions, batches, types and scale must fit, every matrix lie in one allocation, C and D apart from A and B,
** the matrices of a batch behind each other, or (of A and B) one for all, and an algorithm may be given only what it was found for: its
** types, transposes, order, epilogue and batches (how many, and the steps between them), pointers as aligned as was said, and its
** workspace. A result of 16 bits is refused where its parts might be added in 16 bits. The first algorithm found wants a workspace; the
** second entry is one that did not work out, as may happen. */
#include <cublasLt.h>
#include <mutex>
#include <set>
#include "emulated/program.h"
#include "emulated/runtime.h"

using namespace fake;

struct cublasLtContext {
  int device;
};

struct pn_fake_layout {
  cudaDataType_t type;
  uint64_t rows, cols;
  int64_t ld, batch_stride;
  int32_t order, batches;
};

struct pn_fake_matmul {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int32_t transpose_a, transpose_b, epilogue;
  const void *bias;
};

struct pn_fake_preference {
  uint64_t workspace;
  uint32_t alignment[4]; /* A, B, C, D */
  uint32_t reductions;   /* ways to add the parts of a sum */
};

namespace {

std::recursive_mutex lock;
std::set<cublasLtHandle_t> handles;
std::set<cublasLtMatrixLayout_t> layouts;
std::set<cublasLtMatmulDesc_t> descs;
std::set<cublasLtMatmulPreference_t> preferences;

enum { MAGIC = 0x5eed, WORKSPACE = 4096 };

#define CALL(status)                                                                                                               \
  std::lock_guard<std::recursive_mutex> hold(lock);                                                                                \
  if (pn_fake_fails(__func__)) return status
#define NEED(condition)                                                                                                            \
  if (!(condition)) return CUBLAS_STATUS_INVALID_VALUE

bool number_of(cudaDataType_t type, number *out) {
  switch (type) {
  case CUDA_R_32F: *out = number::f32; return true;
  case CUDA_R_64F: *out = number::f64; return true;
  case CUDA_R_16F: *out = number::f16; return true;
  case CUDA_R_16BF: *out = number::bf16; return true;
  }
  return false;
}

struct matrix {
  number type;
  int64_t rows, cols, down, across, batch_stride, batches; /* steps between elements */

  matrix(const pn_fake_layout &l) : type(number::f32) {
    (void)number_of(l.type, &type);
    rows = (int64_t)l.rows;
    cols = (int64_t)l.cols;
    down = l.order == CUBLASLT_ORDER_COL ? 1 : l.ld;
    across = l.order == CUBLASLT_ORDER_COL ? l.ld : 1;
    batch_stride = l.batch_stride;
    batches = l.batches;
  }
  size_t bytes(void) const {
    return (size_t)((batches - 1) * batch_stride + (rows - 1) * down + (cols - 1) * across + 1) * size_of(type);
  }
};

bool is_sound(const pn_fake_layout &l) {
  int64_t least = (int64_t)(l.order == CUBLASLT_ORDER_COL ? l.rows : l.cols);
  int64_t whole = (int64_t)(l.order == CUBLASLT_ORDER_COL ? l.cols : l.rows) * l.ld;
  return l.rows && l.cols && l.ld >= least && l.batches >= 1 && l.batch_stride >= 0 &&
         (l.batches == 1 || l.batch_stride == 0 || l.batch_stride >= whole - l.ld + least);
}

bool same_layout(const pn_fake_layout &a, const pn_fake_layout &b) {
  return a.type == b.type && a.rows == b.rows && a.cols == b.cols && a.batches == b.batches && a.order == b.order;
}

/* Whether the sizes fit, and whether there is such a product at all. */
cublasStatus_t check(const pn_fake_matmul &m, const pn_fake_layout &a, const pn_fake_layout &b, const pn_fake_layout &c,
                     const pn_fake_layout &d) {
  NEED(is_sound(a) && is_sound(b) && is_sound(c) && is_sound(d) && same_layout(c, d));
  NEED(a.batches == d.batches && b.batches == d.batches && (d.batches == 1 || d.batch_stride > 0));
  uint64_t rows = m.transpose_a ? a.cols : a.rows, inner = m.transpose_a ? a.rows : a.cols;
  NEED((m.transpose_b ? b.cols : b.rows) == inner && (m.transpose_b ? b.rows : b.cols) == d.cols && rows == d.rows);
  NEED((m.epilogue == CUBLASLT_EPILOGUE_BIAS) == (m.bias != nullptr));
  bool wide = a.type == CUDA_R_64F, small = a.type == CUDA_R_16F || a.type == CUDA_R_16BF;
  bool fits = a.type == b.type && (d.type == a.type || (small && d.type == CUDA_R_32F)) &&
              m.scale == (wide ? CUDA_R_64F : CUDA_R_32F) && (m.compute == CUBLAS_COMPUTE_64F) == wide &&
              (m.compute != CUBLAS_COMPUTE_32F_FAST_TF32 || a.type == CUDA_R_32F);
  if (m.epilogue == CUBLASLT_EPILOGUE_BIAS) fits &= d.order == CUBLASLT_ORDER_COL;
  return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* What an algorithm must be used for again. */
uint64_t kind_of(const pn_fake_matmul &m, const pn_fake_layout &a, const pn_fake_layout &b, const pn_fake_layout &d) {
  uint64_t k = (uint64_t)m.compute;
  for (uint64_t part : { (uint64_t)a.type, (uint64_t)b.type, (uint64_t)d.type, (uint64_t)m.transpose_a, (uint64_t)m.transpose_b,
                         (uint64_t)m.epilogue, (uint64_t)a.order, (uint64_t)b.order, (uint64_t)d.order, (uint64_t)d.batches,
                         (uint64_t)a.batch_stride, (uint64_t)b.batch_stride, (uint64_t)d.batch_stride })
    k = k * 31 + part;
  return k;
}

bool aligned(const void *p, uint64_t bytes) { return (uintptr_t)p % bytes == 0; }

/* Do y's elements lie apart from those of x? */
bool apart(const matrix &y, const void *y_at, const matrix &x, const void *x_at) {
  auto as_tensor = [](const matrix &m) {
    return tensor{
      0, 1, m.type, false, {m.batches,       m.rows, m.cols  },
          { m.batch_stride, m.down, m.across}
    };
  };
  return !tensors_collide(as_tensor(y), y_at, as_tensor(x), x_at);
}

struct product {
  matrix a, b, c, d;
  const void *A, *B, *C, *bias;
  void *D;
  double alpha, beta;
  bool transpose_a, transpose_b, tf32;
};

void run(const product &p) {
  int64_t inner = p.transpose_a ? p.a.rows : p.a.cols;
  auto a = [&](int64_t i, int64_t k) { return p.transpose_a ? k * p.a.down + i * p.a.across : i * p.a.down + k * p.a.across; };
  auto b = [&](int64_t k, int64_t j) { return p.transpose_b ? j * p.b.down + k * p.b.across : k * p.b.down + j * p.b.across; };
  for (int64_t n = 0; n < p.d.batches; n++)
    for (int64_t i = 0; i < p.d.rows; i++)
      for (int64_t j = 0; j < p.d.cols; j++) {
        double sum = 0;
        for (int64_t k = 0; k < inner; k++) {
          double x = get(p.A, n * p.a.batch_stride + a(i, k), p.a.type), y = get(p.B, n * p.b.batch_stride + b(k, j), p.b.type);
          sum += p.tf32 ? to_tf32(x) * to_tf32(y) : x * y;
        }
        sum *= p.alpha;
        if (p.beta != 0) sum += p.beta * get(p.C, n * p.c.batch_stride + i * p.c.down + j * p.c.across, p.c.type);
        if (p.bias) sum += get(p.bias, i, p.d.type);
        put(p.D, n * p.d.batch_stride + i * p.d.down + j * p.d.across, p.d.type, sum);
      }
}

} /* namespace */

/* ---- the library ---------------------------------------------------------------------------------------------------------------- */

size_t cublasLtGetVersion(void) { return 130000; }

const char *cublasLtGetStatusName(cublasStatus_t status) {
#define NAME(status)                                                                                                               \
  case CUBLAS_STATUS_##status: return "CUBLAS_STATUS_" #status
  switch (status) {
    NAME(SUCCESS);
    NAME(NOT_INITIALIZED);
    NAME(ALLOC_FAILED);
    NAME(INVALID_VALUE);
    NAME(ARCH_MISMATCH);
    NAME(EXECUTION_FAILED);
    NAME(INTERNAL_ERROR);
    NAME(NOT_SUPPORTED);
  }
#undef NAME
  return "unknown status";
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS: return "success";
  case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
  case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
  case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
  case CUBLAS_STATUS_ARCH_MISMATCH: return "the device has not a feature that is needed";
  case CUBLAS_STATUS_EXECUTION_FAILED: return "the GPU program failed to execute";
  case CUBLAS_STATUS_INTERNAL_ERROR: return "an internal operation failed";
  case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
  }
  return "unknown status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  CALL(CUBLAS_STATUS_NOT_INITIALIZED);
  NEED(handle);
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext{ device };
  handles.insert(*handle);
  pn_fake_alive("cublasLtHandle", 1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(handles.erase(handle));
  delete handle;
  pn_fake_alive("cublasLtHandle", -1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
  CALL(CUBLAS_STATUS_ALLOC_FAILED);
  number known;
  NEED(layout && number_of(type, &known));
  *layout = new pn_fake_layout{ type, rows, cols, ld, 0, CUBLASLT_ORDER_COL, 1 };
  layouts.insert(*layout);
  pn_fake_alive("cublasLtMatrixLayout", 1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(layouts.erase(layout));
  delete layout;
  pn_fake_alive("cublasLtMatrixLayout", -1);
  return CUBLAS_STATUS_SUCCESS;
}

/* One number of an attribute, which must have its size. */
template <typename T> static bool read(T *out, const void *value, size_t bytes) {
  if (bytes != sizeof(T)) return false;
  memcpy(out, value, sizeof(T));
  return true;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t bytes) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(layouts.count(layout) && value);
  bool good = false;
  switch (name) {
  case CUBLASLT_MATRIX_LAYOUT_ORDER:
    good = read(&layout->order, value, bytes) && (uint32_t)layout->order <= CUBLASLT_ORDER_ROW;
    break;
  case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: good = read(&layout->batches, value, bytes) && layout->batches >= 1; break;
  case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: good = read(&layout->batch_stride, value, bytes); break;
  }
  NEED(good);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale) {
  CALL(CUBLAS_STATUS_ALLOC_FAILED);
  NEED(desc && (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_32F_FAST_TF32));
  *desc = new pn_fake_matmul{ compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr };
  descs.insert(*desc);
  pn_fake_alive("cublasLtMatmulDesc", 1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(descs.erase(desc));
  delete desc;
  pn_fake_alive("cublasLtMatmulDesc", -1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name, const void *value,
                                              size_t bytes) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(descs.count(desc) && value);
  bool good = false;
  switch (name) {
  case CUBLASLT_MATMUL_DESC_TRANSA:
    good = read(&desc->transpose_a, value, bytes) && (uint32_t)desc->transpose_a <= CUBLAS_OP_T;
    break;
  case CUBLASLT_MATMUL_DESC_TRANSB:
    good = read(&desc->transpose_b, value, bytes) && (uint32_t)desc->transpose_b <= CUBLAS_OP_T;
    break;
  case CUBLASLT_MATMUL_DESC_EPILOGUE:
    good = read(&desc->epilogue, value, bytes) &&
           (desc->epilogue == CUBLASLT_EPILOGUE_DEFAULT || desc->epilogue == CUBLASLT_EPILOGUE_BIAS);
    break;
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER: good = read(&desc->bias, value, bytes); break;
  }
  NEED(good);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  CALL(CUBLAS_STATUS_ALLOC_FAILED);
  NEED(preference);
  *preference = new pn_fake_preference{
    0, {256, 256, 256, 256},
     CUBLASLT_REDUCTION_SCHEME_MASK
  };
  preferences.insert(*preference);
  pn_fake_alive("cublasLtMatmulPreference", 1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(preferences.erase(preference));
  delete preference;
  pn_fake_alive("cublasLtMatmulPreference", -1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void *value, size_t bytes) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  NEED(preferences.count(preference) && value);
  bool good = false;
  switch (name) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: good = read(&preference->workspace, value, bytes); break;
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
    good = read(&preference->reductions, value, bytes) && preference->reductions <= CUBLASLT_REDUCTION_SCHEME_MASK;
    break;
  default: {
    uint32_t *alignment = &preference->alignment[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES];
    good = name >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES && name <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES &&
           read(alignment, value, bytes) && *alignment;
  }
  }
  NEED(good);
  return CUBLAS_STATUS_SUCCESS;
}

/* ALGORITHMS is a mask for specs: bit 0 lets the algorithm with a workspace be, bit 1 the one without. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t *results, int *returned) {
  CALL(CUBLAS_STATUS_INTERNAL_ERROR);
  if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  NEED(descs.count(desc) && layouts.count(a) && layouts.count(b) && layouts.count(c) && layouts.count(d));
  NEED(preferences.count(preference) && requested > 0 && results && returned);
  *returned = 0;
  cublasStatus_t status = check(*desc, *a, *b, *c, *d);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if ((d->type == CUDA_R_16F || d->type == CUDA_R_16BF) &&
      preference->reductions & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  long long mask = pn_fake_setting("ALGORITHMS", -1);
  auto offer = [&](uint64_t id, size_t workspace, cublasStatus_t state) {
    if (*returned == requested) return;
    const uint32_t *align = preference->alignment;
    uint64_t alignments = align[0] | (uint64_t)align[1] << 16 | (uint64_t)align[2] << 32 | (uint64_t)align[3] << 48;
    results[(*returned)++] = cublasLtMatmulHeuristicResult_t{
      { { MAGIC, id, kind_of(*desc, *a, *b, *d), workspace, alignments, 0, 0, 0 } }, workspace, state, 1, { 0 }
    };
  };
  if (preference->workspace >= WORKSPACE && mask & 1) offer(1, WORKSPACE, CUBLAS_STATUS_SUCCESS);
  if (*returned) offer(2, 0, CUBLAS_STATUS_NOT_SUPPORTED);
  if (mask & 2) offer(3, 0, CUBLAS_STATUS_SUCCESS);
  return *returned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream) {
  CALL(CUBLAS_STATUS_EXECUTION_FAILED);
  if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  NEED(descs.count(desc) && layouts.count(a) && layouts.count(b) && layouts.count(c) && layouts.count(d) && alpha && beta && algo);
  cublasStatus_t status = check(*desc, *a, *b, *c, *d);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const uint64_t *said = algo->data;
  NEED(said[0] == MAGIC && said[1] != 2 && said[2] == kind_of(*desc, *a, *b, *d) && workspace_bytes >= said[3]);
  NEED(aligned(A, said[4] & 0xffff) && aligned(B, said[4] >> 16 & 0xffff) && aligned(C, said[4] >> 32 & 0xffff) &&
       aligned(D, said[4] >> 48));
  bool wide = desc->scale == CUDA_R_64F;
  product p = { *a,
                *b,
                *c,
                *d,
                A,
                B,
                C,
                desc->bias,
                D,
                wide ? *(const double *)alpha : (double)*(const float *)alpha,
                wide ? *(const double *)beta : (double)*(const float *)beta,
                desc->transpose_a != 0,
                desc->transpose_b != 0,
                desc->compute == CUBLAS_COMPUTE_32F_FAST_TF32 };
  if (p.beta == 0) p.C = D, p.c = p.d;
  size_t room = said[3];
  if (!pn_fake_owns(stream, A, p.a.bytes()) || !pn_fake_owns(stream, B, p.b.bytes()) || !pn_fake_owns(stream, p.C, p.c.bytes()) ||
      !pn_fake_owns(stream, D, p.d.bytes()) || (room && !pn_fake_owns(stream, workspace, room)) ||
      (p.bias && !pn_fake_owns(stream, p.bias, (size_t)p.d.rows * size_of(p.d.type))))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  matrix whole = p.d; /* the workspace, as one row of bytes */
  whole.type = number::f16;
  whole.batches = whole.rows = 1;
  whole.cols = (int64_t)room / 2;
  whole.across = 1;
  if (!apart(p.d, D, p.a, A) || !apart(p.d, D, p.b, B) || (p.C != D && !apart(p.d, D, p.c, p.C)) ||
      (room && !apart(whole, workspace, p.d, D)))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  cudaError_t rc = pn_fake_push(stream, "a matrix product", [=] {
    run(p);
    if (room) memset(workspace, 0xa5, room);
  });
  return rc == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
