/* backend.c: finds and opens the CUDA plug-in: PENUMBRA_CUDA_LIB, else libpenumbra_cuda.so beside this library. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend.h"
#include "libraries.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pn_backend cuda;
static bool tried, opened;
static char reason[1536];

static void beside_us(char *path, size_t bytes) {
  static const char name[] = "libpenumbra_cuda.so";
  Dl_info us;
  const char *slash = dladdr((void *)(uintptr_t)pn_backend_cuda, &us) && us.dli_fname ? strrchr(us.dli_fname, '/') : NULL;
  if (slash) snprintf(path, bytes, "%.*s/%s", (int)(slash - us.dli_fname), us.dli_fname, name);
  else snprintf(path, bytes, "%s", name);
}

static void open_cuda(void) {
  char path[1024], why[384] = "";
  const char *chosen = getenv("PENUMBRA_CUDA_LIB");
  if (chosen && *chosen) snprintf(path, sizeof path, "%s", chosen);
  else {
    beside_us(path, sizeof path);
    if (access(path, F_OK) != 0) {
      snprintf(reason, sizeof reason, "no CUDA: there is no %s; `make cuda` builds it (docs/gpu.md)", path);
      return;
    }
  }
  char problem[1408];
  void *library = pn_library_open(path, problem, sizeof problem);
  if (!library) {
    snprintf(reason, sizeof reason, "no CUDA: %s", problem);
    return;
  }
  pn_backend_open_fn *open_it;
  *(void **)&open_it = dlsym(library, "pn_backend_open");
  if (!open_it) snprintf(reason, sizeof reason, "no CUDA: %s is not a backend of Penumbra", path);
  else if (open_it(&cuda, why, sizeof why)) snprintf(reason, sizeof reason, "no CUDA: %s", why);
  else if (cuda.version != PN_BACKEND_VERSION)
    snprintf(reason, sizeof reason, "no CUDA: %s is of version %d, this library wants %d", path, cuda.version, PN_BACKEND_VERSION);
  else opened = true;
  if (!opened) dlclose(library);
}

const pn_backend *pn_backend_cuda(void) {
  pthread_mutex_lock(&lock);
  if (!tried) open_cuda();
  tried = true;
  pthread_mutex_unlock(&lock);
  if (opened) return &cuda;
  (void)pn_fail("%s", reason);
  return NULL;
}

int pn_backend_of(int device, const pn_backend **backend, int *index) {
  *backend = pn_backend_cuda();
  if (!*backend) return -1;
  *index = device - PN_CUDA0;
  if (*index < 0 || *index >= (*backend)->n_devices || device >= PN_MOST_DEVICES)
    return pn_fail("no device cuda:%d (%d found)", *index, (*backend)->n_devices);
  return 0;
}

int pn_kernel_on(const pn_op *op, int device, const pn_kernel **out) {
  *out = &op->cpu;
  if (device == PN_CPU || pn_op_devices_of(op) == ANY) return 0;
  const pn_backend *backend;
  int index, place = 0;
  if (pn_backend_of(device, &backend, &index)) return -1;
  while (place < pn_n_ops() && pn_op_at(place) != op) place++;
  *out = backend->kernel(place);
  return *out ? 0 : pn_fail("no CUDA kernel for %s", op->name);
}

int pn_n_devices(void) {
  const pn_backend *backend = pn_backend_cuda();
  return backend ? backend->n_devices : 0;
}

int pn_device_wait(int device) {
  const pn_backend *backend;
  int index;
  if (device == PN_CPU) return 0;
  return pn_backend_of(device, &backend, &index) ? -1 : backend->wait(index);
}
