/* picks.h: which engine of cuDNN was picked for a problem, and the file that keeps it from one process to the next.
**
** The file is for one device and one version of cuDNN. It has a line a pick: checksum of the rest, key, milliseconds, pick, with tabs
** between; the last line of a key counts. Each is written by one call, so that several processes may write, and a torn line is none. */
#ifndef PENUMBRA_GPU_PICKS_H
#define PENUMBRA_GPU_PICKS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { PN_MOST_KNOBS = 48, PN_PICK_KEY = 640 }; /* bytes of a key, at most */

typedef struct pn_pick {
  int64_t engine;
  int n_knobs;
  struct {
    int64_t type, value;
  } knob[PN_MOST_KNOBS];
} pn_pick;

int pn_pick_write(char *text, size_t bytes, const pn_pick *p); /* "62 2=0 13=1"; as snprintf */
/* Under $PENUMBRA_HOME, $XDG_CACHE_HOME/penumbra or ~/.cache/penumbra; false when there is none of them. */
bool pn_picks_path(char *path, size_t bytes, size_t version, const char *device);
bool pn_picks_recall(FILE *file, const char *key, pn_pick *out, double *milliseconds);
/* Where the file cannot be written the pick is made again next time: that is said once, and nothing is lost. path is as it was on return. */
void pn_picks_remember(char *path, const char *key, const pn_pick *p, double milliseconds);
#endif
