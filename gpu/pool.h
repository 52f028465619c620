/* pool.h: device memory that is kept: segments from the driver, cut and joined, handed out in the order of one stream.
**
** What is given back may be taken again at once, because everything that uses it goes through the same stream. */
#ifndef PENUMBRA_GPU_POOL_H
#define PENUMBRA_GPU_POOL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pn_pool pn_pool;

/* How a pool gets and gives back whole segments of the device it serves. take: NULL when there is no more. */
typedef struct pn_pool_source {
  void *(*take)(void *context, size_t bytes);
  void (*give)(void *context, void *memory);
  void *context;
  bool exact; /* a segment for each request, as large as that, given back at once: so that a sanitizer sees where each ends */
  bool keeps; /* no segment is given back before a trim, also when exact */
} pn_pool_source;

pn_pool *pn_pool_new(pn_pool_source source); /* NULL when there is no host memory */
void pn_pool_free(pn_pool *pool);            /* gives every segment back */
void *pn_pool_take(pn_pool *pool,
                   size_t bytes); /* aligned to 512 bytes, or as the source does when exact; NULL when the source has none */
size_t pn_pool_give(pn_pool *pool, void *memory); /* the bytes of its block; 0 when it is not of this pool */
void pn_pool_trim(pn_pool *pool);                 /* gives back the segments in which nothing lies */
typedef struct pn_pool_count {
  int64_t held, peak_held, used;
} pn_pool_count;
pn_pool_count pn_pool_counts(const pn_pool *pool); /* bytes: of segments; of blocks that are out */
#endif
