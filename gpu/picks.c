/* picks.c: see picks.h. */
#include "picks.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

int pn_pick_write(char *text, size_t bytes, const pn_pick *p) {
  int used = snprintf(text, bytes, "%lld", (long long)p->engine);
  for (int i = 0; i < p->n_knobs && used > 0 && (size_t)used < bytes; i++)
    used += snprintf(text + used, bytes - (size_t)used, " %lld=%lld", (long long)p->knob[i].type, (long long)p->knob[i].value);
  return used;
}

static bool read_pick(pn_pick *out, const char *text) {
  char *end;
  *out = (pn_pick){ .engine = strtoll(text, &end, 10) };
  while (*end == ' ' && out->n_knobs < PN_MOST_KNOBS) {
    int64_t type = strtoll(end + 1, &end, 10);
    if (*end != '=') return false;
    out->knob[out->n_knobs].type = type;
    out->knob[out->n_knobs++].value = strtoll(end + 1, &end, 10);
  }
  return end != text && !*end;
}

/* $PENUMBRA_HOME, $XDG_CACHE_HOME/penumbra or ~/.cache/penumbra; false when there is none of them. */
static bool cache_directory(char *path, size_t bytes) {
  const char *home = getenv("PENUMBRA_HOME"), *cache = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");
  int n = home && *home     ? snprintf(path, bytes, "%s", home)
          : cache && *cache ? snprintf(path, bytes, "%s/penumbra", cache)
          : user && *user   ? snprintf(path, bytes, "%s/.cache/penumbra", user)
                            : 0;
  return n > 0 && (size_t)n < bytes;
}

bool pn_picks_path(char *path, size_t bytes, size_t version, const char *device) {
  if (!cache_directory(path, bytes)) return false;
  size_t used = strlen(path);
  int n = snprintf(path + used, bytes - used, "/cudnn-%zu-%s.picks", version, device);
  if (n <= 0 || (size_t)n >= bytes - used) return false;
  for (char *c = path + used + 1; *c; c++)
    if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", *c)) *c = '_';
  return true;
}

bool pn_picks_recall(FILE *file, const char *key, pn_pick *out, double *milliseconds) {
  char *line = NULL, *rest;
  size_t room = 0, key_bytes = strlen(key);
  bool found = false;
  pn_pick read;
  for (ssize_t n; (n = getline(&line, &room, file)) > 0;) {
    uint32_t sum = (uint32_t)strtoul(line, &rest, 16);
    if (line[n - 1] != '\n' || *rest != '\t') continue;
    line[n - 1] = 0;
    if (strncmp(rest + 1, key, key_bytes) != 0 || rest[1 + key_bytes] != '\t' || pn_crc32c(0, rest, strlen(rest)) != sum) continue;
    double ms = strtod(rest + key_bytes + 2, &rest);
    if (*rest != '\t' || !read_pick(&read, rest + 1)) continue;
    *out = read;
    *milliseconds = ms;
    found = true;
  }
  free(line);
  return found;
}

static void make_directories(char *path) { /* above a file */
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    (void)mkdir(path, 0777);
    *slash = '/';
  }
}

void pn_picks_remember(char *path, const char *key, const pn_pick *p, double milliseconds) {
  char chosen[PN_MOST_KNOBS * 16], rest[PN_PICK_KEY + sizeof chosen], line[sizeof rest + 16];
  pn_pick_write(chosen, sizeof chosen, p);
  snprintf(rest, sizeof rest, "\t%s\t%.4f\t%s", key, milliseconds, chosen);
  int n = snprintf(line, sizeof line, "%08x%s\n", (unsigned)pn_crc32c(0, rest, strlen(rest)), rest);
  make_directories(path);
  int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  bool good = file >= 0 && write(file, line, (size_t)n) == n;
  int code = errno;
  if (file >= 0) good = close(file) == 0 && good;
  if (!good) pn_notice("%s: picks of convolutions are not kept: %s", path, strerror(code));
}
