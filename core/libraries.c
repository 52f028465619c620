/* libraries.c: see libraries.h. A library that is open already is found by its name, wherever it came from: so it is enough to open
** what is missing from where it lies. cuDNN and cuBLAS come with the toolkit, or inside Python's packages, beside PyTorch. */
#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libraries.h"

enum { MOST_MISSING = 16 };

typedef struct search {
  const char *name;
  char found[PATH_MAX]; /* "" until it is */
  char *looked;         /* the folders, for the message */
  size_t bytes;
} search;

/* One pattern of a folder; the last that matches is the newest version. */
static void look_in(search *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void look_in(search *s, const char *format, ...) {
  char folder[PATH_MAX], pattern[PATH_MAX + 256];
  glob_t found;
  va_list ap;
  va_start(ap, format);
  int n = vsnprintf(folder, sizeof folder, format, ap);
  va_end(ap);
  if (s->found[0] || n < 0 || (size_t)n >= sizeof folder) return;
  size_t used = strlen(s->looked);
  snprintf(s->looked + used, s->bytes - used, "%s%s", used ? ", " : "", folder);
  snprintf(pattern, sizeof pattern, "%s/%s", folder, s->name);
  if (glob(pattern, 0, NULL, &found)) return;
  snprintf(s->found, sizeof s->found, "%s", found.gl_pathv[found.gl_pathc - 1]);
  globfree(&found);
}

#define PACKAGES "/lib/python3*/*-packages/nvidia/*/lib"

/* The packages of a Python that is installed under a prefix. */
static void look_in_python(search *s, const char *prefix) {
  if (prefix && *prefix) look_in(s, "%s" PACKAGES, prefix);
}

/* Of each python3 on the PATH: where it stands (a virtual environment), and where it is a link to; then where the pip of Debian's and
** Ubuntu's python3 installs: for all users, and for one. */
static void look_in_pythons(search *s) {
  const char *at = getenv("PATH"), *prefix;
  look_in_python(s, getenv("VIRTUAL_ENV"));
  look_in_python(s, getenv("CONDA_PREFIX"));
  if ((prefix = getenv("CONDA_PREFIX")) && *prefix) look_in(s, "%s/lib", prefix); /* packages of Conda's own */
  while (at && *at && !s->found[0]) {
    size_t n = strcspn(at, ":");
    char path[PATH_MAX + 16], real[PATH_MAX];
    if (n < PATH_MAX) {
      snprintf(path, sizeof path, "%.*s/python3", (int)n, at);
      if (access(path, X_OK) == 0) {
        snprintf(path, sizeof path, "%.*s/..", (int)n, at);
        if (realpath(path, real)) look_in_python(s, real);
        snprintf(path, sizeof path, "%.*s/python3", (int)n, at);
        char *slash = realpath(path, real) ? strrchr(real, '/') : NULL;
        if (slash) {
          snprintf(slash, sizeof real - (size_t)(slash - real), "/..");
          if (realpath(real, path)) look_in_python(s, path);
        }
      }
    }
    at += n + (at[n] == ':');
  }
  look_in_python(s, "/usr/local");
  if ((at = getenv("HOME")) && *at) look_in(s, "%s/.local" PACKAGES, at);
}

static void look_everywhere(search *s) {
  static const char *const homes[] = { "CUDA_HOME", "CUDA_PATH" };
  const char *at = getenv("PENUMBRA_CUDA_PATH");
  for (; at && *at; at += strcspn(at, ":"), at += *at == ':') look_in(s, "%.*s", (int)strcspn(at, ":"), at);
  for (int i = 0; i < 2; i++)
    if ((at = getenv(homes[i])) && *at) look_in(s, "%s/lib64", at);
  look_in(s, "/usr/local/cuda/lib64");
  look_in_pythons(s);
}

/* "libcudnn.so.9: cannot open shared object file: No such file or directory" -> the name, where it is not the library's own. */
static int name_missing(const char *path, const char *problem, char *name, size_t bytes) {
  const char *end = strstr(problem, ": cannot open shared object file");
  if (!end || (size_t)(end - problem) >= bytes || memchr(problem, '/', (size_t)(end - problem))) return 0;
  snprintf(name, bytes, "%.*s", (int)(end - problem), problem);
  return strcmp(name, path) != 0;
}

void *pn_library_open(const char *path, char *why, size_t bytes) {
  char name[256], looked[1024];
  for (int missing = 0;; missing++) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
    snprintf(why, bytes, "%s", dlerror());
    if (missing == MOST_MISSING || !name_missing(path, why, name, sizeof name)) return NULL;
    search s = { .name = name, .looked = looked, .bytes = sizeof looked };
    looked[0] = 0;
    look_everywhere(&s);
    if (!s.found[0]) {
      snprintf(why, bytes, "%s: there is no %s where the loader looks, nor in %s (PENUMBRA_CUDA_PATH=FOLDER:... names more)", path,
               name, looked);
      return NULL;
    }
    if (!pn_library_open(s.found, why, bytes)) return NULL; /* it stays open; what it needs is looked for in the same way */
  }
}
