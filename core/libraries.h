/* libraries.h: opening a shared library whose own libraries may lie where the system's loader does not look. */
#ifndef PENUMBRA_LIBRARIES_H
#define PENUMBRA_LIBRARIES_H
#include <stddef.h>

/* As dlopen(path). What the loader cannot find is looked for in the folders of $PENUMBRA_CUDA_PATH, of the CUDA toolkit and of Python's
** packages (nvidia/.../lib), and opened first. NULL with a sentence in `why`, which says where it was looked for. */
void *pn_library_open(const char *path, char *why, size_t bytes);
#endif
