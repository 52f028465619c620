/* about.c: who we are, and what we run on. */
#include "backend.h"

const char *pn_version(void) { return PN_VERSION; }

const char *pn_build_info(void) {
  static char text[256];
  snprintf(text, sizeof text, "penumbra %s, real %s, %s kernels, precision %s, %d threads, compiled by " __VERSION__, PN_VERSION,
           pn_dtype_name(PN_REAL_DTYPE), pn_cpu_variant(), pn_precision(PN_CPU), pn_threads());
  return text;
}

int pn_device_describe(int device, char *buffer, size_t bytes) {
  if (!buffer || !bytes) return pn_fail("device_describe: no buffer");
  if (device == PN_CPU) {
    snprintf(buffer, bytes, "%s", pn_build_info());
    return 0;
  }
  const pn_backend *backend;
  int index;
  return pn_backend_of(device, &backend, &index) ? -1 : backend->describe(index, buffer, bytes);
}
