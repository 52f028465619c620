/* worker.c: libpenumbra_worker.so: threads that run Lua, each with a LuaJIT state of its own. lua/penumbra/worker/init.lua is the other
** half: it calls these functions through the FFI, and its `serve` is what a thread runs. Nothing of one state reaches another but
** what the channels carry.
**
** A thread leaves when its channel is closed. When the program ends, by whatever way, all are stopped and waited for first: a
** thread must not run while the libraries under it are taken down. One that does not come to its end is left behind. */
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { GRACE_SECONDS = 10 };

typedef struct pn_worker {
  struct pn_worker *next; /* the list of those that run */
  pthread_t thread;
  char *path, *cpath;
  void *jobs, *results;
  void (*close)(void *channel);
  int nice;
  atomic_bool ended;
  char failure[1024]; /* read once it has ended */
} pn_worker;

/* What worker.lua declares to the FFI. */
EXPORT pn_worker *pn_worker_start(const char *path, const char *cpath, void *jobs, void *results, void (*close)(void *), int nice);
EXPORT const char *pn_worker_failure(pn_worker *w); /* why it ended; NULL while it runs */
EXPORT bool pn_worker_stop(pn_worker *w);           /* closes its channel and waits; false: it was left behind */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pn_worker *running;

static int serve(lua_State *L) {
  pn_worker *w = lua_touserdata(L, 1);
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushstring(L, w->path);
  lua_setfield(L, -2, "path");
  lua_pushstring(L, w->cpath);
  lua_setfield(L, -2, "cpath");
  lua_getfield(L, -1, "loaded");
  lua_pushboolean(L, true);
  lua_setfield(L, -2, "penumbra.in_worker");
  lua_pop(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "penumbra.worker");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "serve");
  lua_pushlightuserdata(L, w->jobs);
  lua_pushlightuserdata(L, w->results);
  lua_call(L, 2, 0);
  return 0;
}

static void *run(void *argument) {
  pn_worker *w = argument;
  id_t self = (id_t)syscall(SYS_gettid); /* on Linux a priority is of a thread alone */
  (void)setpriority(PRIO_PROCESS, self, getpriority(PRIO_PROCESS, self) + w->nice);
  lua_State *L = luaL_newstate();
  if (!L) snprintf(w->failure, sizeof w->failure, "no memory for LuaJIT");
  else {
    if (lua_cpcall(L, serve, w)) {
      const char *text = lua_tostring(L, -1);
      snprintf(w->failure, sizeof w->failure, "%s", text ? text : "an error that is no text");
    }
    lua_close(L);
  }
  atomic_store(&w->ended, true);
  return NULL;
}

static void stop_all(void) {
  for (;;) {
    pthread_mutex_lock(&lock);
    pn_worker *w = running;
    pthread_mutex_unlock(&lock);
    if (!w) return;
    (void)pn_worker_stop(w);
  }
}

static char *copy(const char *text) {
  size_t n = strlen(text) + 1;
  char *to = malloc(n);
  if (to) memcpy(to, text, n);
  return to;
}

static void discard(pn_worker *w) {
  free(w->path);
  free(w->cpath);
  free(w);
}

pn_worker *pn_worker_start(const char *path, const char *cpath, void *jobs, void *results, void (*close)(void *), int nice) {
  static bool watched;
  pn_worker *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->path = copy(path);
  w->cpath = copy(cpath);
  w->jobs = jobs;
  w->results = results;
  w->close = close;
  w->nice = nice;
  atomic_init(&w->ended, false);
  sigset_t all, before; /* signals are the main thread's */
  sigfillset(&all);
  pthread_mutex_lock(&lock);
  if (!watched) watched = atexit(stop_all) == 0;
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = w->path && w->cpath ? pthread_create(&w->thread, NULL, run, w) : ENOMEM;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!rc) {
    w->next = running;
    running = w;
  }
  pthread_mutex_unlock(&lock);
  if (!rc) return w;
  discard(w);
  errno = rc;
  return NULL;
}

const char *pn_worker_failure(pn_worker *w) {
  if (!atomic_load(&w->ended)) return NULL;
  return w->failure[0] ? w->failure : "it came to its end";
}

bool pn_worker_stop(pn_worker *w) {
  pthread_mutex_lock(&lock);
  pn_worker **link = &running;
  while (*link && *link != w) link = &(*link)->next;
  bool listed = *link != NULL;
  if (listed) *link = w->next;
  pthread_mutex_unlock(&lock);
  if (!listed) return true; /* stopped before, when the program began to end */
  w->close(w->jobs);
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += GRACE_SECONDS;
  if (pthread_timedjoin_np(w->thread, NULL, &until)) {
    pthread_detach(w->thread);
    return false;
  }
  discard(w);
  return true;
}
