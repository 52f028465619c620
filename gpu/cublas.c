/* cublas.c: see cublas.h. The only file that calls cuBLASLt.
**
** cuBLASLt thinks in columns: a matrix that lies in rows is a transposed one, and y in rows is the transpose of b' a'. What it needs for
** a product (descriptors, the algorithm that its heuristics put first) is kept by shape, types, alignment and precision, the last of
** them; workspace comes from the device's pool, in the order of its stream. */
#include "cublas.h"
#include <cublasLt.h>
#include <pthread.h>
#include <string.h>
#include "precision.h"

enum { KEPT = 128, OFFERS = 8, MOST_AT_ONCE = 65535 /* matrices of a batch: what a grid has room for along its third axis */ };
static const int64_t workspace_most = 32 << 20; /* what NVIDIA recommends for the largest devices */

/* One side of a product, in columns. */
typedef struct side {
  int64_t rows, cols, ld, alignment, step;
  int32_t type, turned;
} side;

/* All numbers, so that two can be compared byte by byte. */
typedef struct key {
  side a, b, y;
  int64_t workspace;
  int32_t compute, index, batch, unused; /* no gap at the end */
} key;

typedef struct product {
  key key;
  bool ready;
  cublasLtMatmulDesc_t how;
  cublasLtMatrixLayout_t a, b, y;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace;
} product;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static cublasLtHandle_t handles[PN_MOST_DEVICES];
static product kept[KEPT];
static int oldest;

static int check(cublasStatus_t status, const char *doing) {
  return status == CUBLAS_STATUS_SUCCESS ? 0 : pn_fail("cuBLAS: cannot %s: %s", doing, cublasLtGetStatusString(status));
}

/* ---- matrices --------------------------------------------------------------------------------------------------------------- */

/* Do rows follow one another inside each column, and columns not overlap? */
static bool lies_in_columns(const pn_matrix *m) {
  return (m->size[0] <= 1 || m->stride[0] == 1) && (m->size[1] <= 1 || m->stride[1] >= pn_max64(m->size[0], 1));
}

/* Does the memory of one matrix end before the next begins, and is there one step between all of them? */
static bool lies_in_steps(pn_matrix *m, const pn_tensor *t) {
  int64_t count = 1, end = (m->size[0] - 1) * m->stride[0] + (m->size[1] - 1) * m->stride[1] + 1;
  for (int d = t->n_dims - 3; d >= 0; d--) {
    if (t->shape[d] == 1) continue;
    if (count == 1) m->step = t->stride[d];
    if (t->stride[d] != m->step * count || m->step < end) return false;
    count *= t->shape[d];
  }
  return true;
}

bool pn_matrix_of(pn_matrix *out, const pn_tensor *t) {
  const int64_t *size = t->shape + t->n_dims - 2, *stride = t->stride + t->n_dims - 2;
  *out = (pn_matrix){
    pn_bytes_of(t), t->dtype, {size[0],    size[1]  },
      { stride[0], stride[1]},
      0
  };
  const pn_matrix turned = pn_matrix_turned(*out);
  return (lies_in_columns(out) || lies_in_columns(&turned)) && lies_in_steps(out, t);
}

/* Of each matrix of a batch. */
static int64_t alignment_of(const pn_matrix *m) {
  const int64_t step = m->step * pn_dtype_bytes(m->dtype);
  int64_t bytes = 256; /* the most that cuBLASLt asks about */
  while ((uintptr_t)m->data % (uintptr_t)bytes || step % bytes) bytes /= 2;
  return bytes;
}

static int32_t type_of(pn_dtype dtype) {
  switch (dtype) {
  case PN_F64: return CUDA_R_64F;
  case PN_F16: return CUDA_R_16F;
  case PN_BF16: return CUDA_R_16BF;
  default: return CUDA_R_32F;
  }
}

static side side_of(pn_matrix m) {
  const bool turned = !lies_in_columns(&m);
  if (turned) m = pn_matrix_turned(m);
  const int64_t ld = m.size[1] > 1 ? m.stride[1] : m.size[0];
  return (side){ m.size[0], m.size[1], ld, alignment_of(&m), m.step, type_of(m.dtype), turned };
}

/* ---- what a product needs ------------------------------------------------------------------------------------------------------ */

static void drop(product *p) {
  if (p->how) (void)cublasLtMatmulDescDestroy(p->how);
  if (p->a) (void)cublasLtMatrixLayoutDestroy(p->a);
  if (p->b) (void)cublasLtMatrixLayoutDestroy(p->b);
  if (p->y) (void)cublasLtMatrixLayoutDestroy(p->y);
  *p = (product){ .ready = false };
}

static int make_layout(cublasLtMatrixLayout_t *out, const side *s, int32_t batch) {
  int rc = check(cublasLtMatrixLayoutCreate(out, (cudaDataType_t)s->type, (uint64_t)s->rows, (uint64_t)s->cols, s->ld),
                 "describe a matrix");
  if (rc || batch == 1) return rc;
  rc = check(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), "describe a batch");
  return rc ? rc
            : check(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &s->step, sizeof s->step),
                    "describe a batch");
}

static int set(product *p, cublasLtMatmulDescAttributes_t name, bool turned) {
  const int32_t value = turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  return check(cublasLtMatmulDescSetAttribute(p->how, name, &value, sizeof value), "describe a product");
}

static int prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name, const void *value,
                  size_t bytes) {
  return check(cublasLtMatmulPreferenceSetAttribute(preference, name, value, bytes), "say what is preferred");
}

static int prefer_all(cublasLtMatmulPreference_t preference, const key *k) {
  static const cublasLtMatmulPreferenceAttributes_t name[] = { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES };
  const side *sides[] = { &k->a, &k->b, &k->y, &k->y };
  const uint64_t workspace = (uint64_t)k->workspace;
  const uint32_t in_f32 = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  if (prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace)) return -1;
  if ((k->y.type == CUDA_R_16F || k->y.type == CUDA_R_16BF) && /* else parts of a sum may be rounded before they are added */
      prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &in_f32, sizeof in_f32))
    return -1;
  for (size_t i = 0; i < PN_LENGTH(name); i++) {
    const uint32_t alignment = (uint32_t)sides[i]->alignment;
    if (prefer(preference, name[i], &alignment, sizeof alignment)) return -1;
  }
  return 0;
}

static int choose(product *p, cublasLtHandle_t handle) {
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t offers[OFFERS];
  int n = 0, i = 0;
  if (check(cublasLtMatmulPreferenceCreate(&preference), "say what is preferred")) return -1;
  int rc = prefer_all(preference, &p->key);
  rc = rc ? rc
          : check(cublasLtMatmulAlgoGetHeuristic(handle, p->how, p->a, p->b, p->y, p->y, preference, OFFERS, offers, &n),
                  "find an algorithm");
  (void)cublasLtMatmulPreferenceDestroy(preference);
  if (rc) return rc;
  while (i < n && offers[i].state != CUBLAS_STATUS_SUCCESS) i++;
  if (i == n) return pn_fail("cuBLAS: cannot find an algorithm: none of %d works", n);
  p->algorithm = offers[i].algo;
  p->workspace = offers[i].workspaceSize;
  return 0;
}

static int prepare(product *p, cublasLtHandle_t handle, const key *k) {
  const bool wide = k->y.type == CUDA_R_64F;
  *p = (product){ .key = *k };
  int rc = check(cublasLtMatmulDescCreate(&p->how, (cublasComputeType_t)k->compute, wide ? CUDA_R_64F : CUDA_R_32F),
                 "describe a product");
  rc = rc ? rc : set(p, CUBLASLT_MATMUL_DESC_TRANSA, k->a.turned);
  rc = rc ? rc : set(p, CUBLASLT_MATMUL_DESC_TRANSB, k->b.turned);
  rc = rc ? rc : make_layout(&p->a, &k->a, k->batch);
  rc = rc ? rc : make_layout(&p->b, &k->b, k->batch);
  rc = rc ? rc : make_layout(&p->y, &k->y, k->batch);
  rc = rc ? rc : choose(p, handle);
  p->ready = !rc;
  if (rc) drop(p);
  return rc;
}

static product *find(const key *k) {
  for (int i = 0; i < KEPT; i++)
    if (kept[i].ready && !memcmp(&kept[i].key, k, sizeof *k)) return &kept[i];
  return NULL;
}

static product *product_for(pn_gpu *gpu, const key *k) {
  product *p = find(k);
  cublasLtHandle_t *handle = &handles[gpu->index];
  if (p) return p;
  if (!*handle && check(cublasLtCreate(handle), "start on the device")) return NULL;
  p = &kept[oldest];
  drop(p);
  if (prepare(p, *handle, k)) return NULL;
  oldest = (oldest + 1) % KEPT;
  return p;
}

/* ---- the product ------------------------------------------------------------------------------------------------------------------ */

static int32_t compute_type(const pn_gpu *gpu, pn_dtype dtype) {
  if (dtype == PN_F64) return CUBLAS_COMPUTE_64F;
  return dtype == PN_F32 && pn_precision_of(PN_CUDA0 + gpu->index) == PN_AS_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                                 : CUBLAS_COMPUTE_32F;
}

static int multiply(pn_gpu *gpu, const product *p, void *y, const void *a, const void *b, bool add) {
  const float one_f = 1, beta_f = add ? 1 : 0;
  const double one_d = 1, beta_d = add ? 1 : 0;
  const bool wide = p->key.y.type == CUDA_R_64F;
  const void *one = wide ? (const void *)&one_d : &one_f, *beta = wide ? (const void *)&beta_d : &beta_f;
  void *workspace = p->workspace ? pn_gpu_scratch(gpu, p->workspace) : NULL;
  if (p->workspace && !workspace) return -1;
  int rc = check(cublasLtMatmul(handles[gpu->index], p->how, one, a, p->a, b, p->b, beta, y, p->y, y, p->y, &p->algorithm,
                                workspace, p->workspace, gpu->stream),
                 "multiply matrices");
  pn_gpu_scratch_free(gpu, workspace);
  return rc;
}

/* A batch that one call takes. */
static int multiply_some(pn_gpu *gpu, pn_matrix y, pn_matrix a, pn_matrix b, int64_t batch, bool add) {
  const bool turned = !lies_in_columns(&y); /* then y' = b' a' */
  const pn_matrix left = turned ? pn_matrix_turned(b) : a, right = turned ? pn_matrix_turned(a) : b;
  key k;
  memset(&k, 0, sizeof k);
  k.a = side_of(left);
  k.b = side_of(right);
  k.y = side_of(turned ? pn_matrix_turned(y) : y);
  k.workspace = pn_min64(pn_workspace(), workspace_most);
  k.compute = compute_type(gpu, a.dtype);
  k.index = gpu->index;
  k.batch = (int32_t)batch;
  pthread_mutex_lock(&lock);
  const product *p = product_for(gpu, &k);
  int rc = p ? multiply(gpu, p, y.data, left.data, right.data, add) : -1;
  pthread_mutex_unlock(&lock);
  return rc;
}

static pn_matrix later(pn_matrix m, int64_t n) {
  m.data = (char *)m.data + n * m.step * pn_dtype_bytes(m.dtype);
  return m;
}

int pn_cublas_products(pn_gpu *gpu, pn_matrix y, pn_matrix a, pn_matrix b, int64_t batch, bool add) {
  char times[32] = "";
  int rc = 0;
  if (batch == 1) y.step = a.step = b.step = 0; /* so that it is the product of any other such */
  for (int64_t i = 0; i < batch && !rc; i += MOST_AT_ONCE)
    rc = multiply_some(gpu, later(y, i), later(a, i), later(b, i), pn_min64(batch - i, MOST_AT_ONCE), add);
  if (batch > 1) snprintf(times, sizeof times, "%lld times ", (long long)batch);
  return rc ? pn_fail("%s (%s%lld,%lld by %lld,%lld)", pn_error(), times, (long long)a.size[0], (long long)a.size[1],
                      (long long)b.size[0], (long long)b.size[1])
            : 0;
}
