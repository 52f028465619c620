/* arena.h: large blocks of host memory. The caller holds the lock of storage.c. */
#ifndef PENUMBRA_ARENA_H
#define PENUMBRA_ARENA_H
#include "internal.h"

typedef struct pn_block pn_block;
pn_block *pn_arena_take(size_t bytes, bool lazy); /* NULL: the system has no more. lazy: promised, not reserved */
void pn_arena_give(pn_block *s);
void *pn_block_data(const pn_block *s); /* at a page's start, not initialised */
size_t pn_block_bytes(const pn_block *s);
size_t pn_arena_held(void); /* blocks, and what waits to be one again */
void pn_arena_trim(void);   /* what is free goes back to the system */
/* What is taken between the two and never written is not held afterwards. */
void pn_arena_remember(void);
void pn_arena_forget(void);
#endif
