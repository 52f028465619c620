/* main.c: the program penumbra: LuaJIT with our package in sight; the rest is lua/penumbra/cli.lua.
**
** It finds its home (the checkout, or PREFIX/share/penumbra of an installation) from its own path, so it runs from any
** directory. Lua sees `require "penumbra.program"`: { exe, home, version, catch_interrupt(mode, text), interrupted() }.
**
** Exit codes: 0 done, 1 the work failed, 2 the command line was wrong. A failure prints its message alone;
** PENUMBRA_TRACEBACK=1 adds the traceback. An error value may be a table { message =, code = } (penumbra.base.usage); without a
** message nothing is printed.
*/
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>

enum { PATH_BYTES = PATH_MAX + 64 };

/* ---- SIGINT: the first is kept for the script to find, or raised in it; the second ends the program. What is kept for the script
** may also be SIGTERM and SIGHUP: of a batch system, of a connection that was lost. ------------------------------------------- */

static volatile sig_atomic_t interrupted;
static lua_State *raise_in;  /* NULL: only note it */
static char first_text[256]; /* what the first one is answered with on stderr */

/* A SIGHUP that was ignored from the start (nohup) stays so. */
static void handle(void (*with)(int), bool all) {
  signal(SIGINT, with);
  signal(SIGTERM, all ? with : SIG_DFL);
  if (signal(SIGHUP, all ? with : SIG_DFL) == SIG_IGN) signal(SIGHUP, SIG_IGN);
}

static void raise_now(lua_State *L, lua_Debug *where) {
  (void)where;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted");
}

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
  if (raise_in) {
    signal(SIGINT, SIG_DFL); /* compiled code may not come to the hook: the second ends it */
    lua_sethook(raise_in, raise_now, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
  } else {
    int before = errno;
    handle(SIG_DFL, true);
    (void)!write(2, first_text, strlen(first_text)); /* the terminal may be gone */
    errno = before;
  }
}

/* catch_interrupt("note" | "raise" | "off", text with which the first is answered at once when it is noted) */
static int catch_interrupt(lua_State *L) {
  static const char *const modes[] = { "off", "note", "raise", NULL };
  int mode = luaL_checkoption(L, 1, NULL, modes);
  handle(SIG_DFL, true);
  interrupted = 0;
  raise_in = mode == 2 ? L : NULL;
  snprintf(first_text, sizeof first_text, "%s", luaL_optstring(L, 2, ""));
  if (mode) handle(on_interrupt, mode == 1);
  return 0;
}

static int was_interrupted(lua_State *L) {
  lua_pushboolean(L, interrupted);
  return 1;
}

/* ---- home --------------------------------------------------------------------------------------------------------- */

static bool is_home(const char *dir) {
  char path[PATH_BYTES];
  struct stat st;
  return snprintf(path, sizeof path, "%s/lua/penumbra/cli.lua", dir) < (int)sizeof path && stat(path, &st) == 0;
}

/* The nearest directory above the program that holds us, itself or in share/penumbra. */
static bool find_home(const char *exe, char *home) {
  char dir[PATH_MAX];
  snprintf(dir, sizeof dir, "%s", exe);
  for (char *slash; (slash = strrchr(dir, '/')) != NULL;) {
    *slash = '\0';
    snprintf(home, PATH_BYTES, "%s", dir);
    if (is_home(home)) return true;
    snprintf(home, PATH_BYTES, "%s/share/penumbra", dir);
    if (is_home(home)) return true;
  }
  return false;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static bool wants_traceback(void) {
  const char *text = getenv("PENUMBRA_TRACEBACK");
  return text && *text && strcmp(text, "0") != 0;
}

/* Scopes and modules raise errors again on their way out; penumbra.scope keeps the traceback of where one began. */
static void push_inner_traceback(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  lua_getfield(L, -1, "penumbra.scope");
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "traceback");
    if (lua_isfunction(L, -1) && lua_pcall(L, 0, 1, 0) == 0 && lua_isstring(L, -1)) return;
  }
  lua_pushnil(L);
}

static int on_error(lua_State *L) {
  if (!lua_isstring(L, 1) || !wants_traceback()) return lua_settop(L, 1), 1;
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  int outer = lua_gettop(L);
  push_inner_traceback(L);
  if (lua_isstring(L, -1)) lua_pushfstring(L, "%s\nit began here: %s", lua_tostring(L, outer), lua_tostring(L, -1));
  else lua_pushvalue(L, outer);
  return 1;
}

/* Prints what the failed call left on the stack; the exit code. */
static int report(lua_State *L) {
  int code = 1;
  const char *text = lua_tostring(L, -1);
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "code");
    bool leaves = lua_isnumber(L, -1);
    if (leaves) code = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    lua_getfield(L, -1, "message");
    text = lua_tostring(L, -1);
    if (!text && leaves) return code;
    if (!text) lua_pop(L, 1);
  }
  if (!text) text = luaL_callmeta(L, -1, "__tostring") ? lua_tostring(L, -1) : NULL;
  fflush(stdout);
  /* A progress line may stand where the message goes: what is left of it is cleared. */
  fprintf(stderr, "penumbra: %s%s\n", text ? text : lua_typename(L, lua_type(L, -1)), isatty(2) ? "\033[K" : "");
  return code;
}

static void set(lua_State *L, const char *key, const char *text) {
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

/* package.loaded["penumbra.program"], and package.path: the user's own directory, then our Lua, then models and recipes; C modules also
** from lib/lua beside the program, where a bundle has them. */
static void prepare(lua_State *L, const char *exe, const char *home) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "./?.lua;./?/init.lua;%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;%s", home, home, home, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_pop(L, 1);
  lua_getfield(L, -1, "cpath");
  lua_pushlstring(L, exe, (size_t)(strrchr(exe, '/') - exe));
  lua_pushfstring(L, "%s/lib/lua/?.so;%s", lua_tostring(L, -1), lua_tostring(L, -2));
  lua_setfield(L, -4, "cpath");
  lua_pop(L, 2);
  lua_getfield(L, -1, "loaded");
  lua_createtable(L, 0, 5);
  set(L, "exe", exe);
  set(L, "home", home);
  set(L, "version", PN_VERSION);
  lua_pushcfunction(L, catch_interrupt);
  lua_setfield(L, -2, "catch_interrupt");
  lua_pushcfunction(L, was_interrupted);
  lua_setfield(L, -2, "interrupted");
  lua_setfield(L, -2, "penumbra.program");
  lua_pop(L, 2);
}

int main(int argc, char **argv) {
  char exe[PATH_MAX], home[PATH_BYTES], file[PATH_BYTES + 32];
  ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (length <= 0) return fprintf(stderr, "penumbra: cannot read /proc/self/exe\n"), 1;
  exe[length] = '\0';
  if (!find_home(exe, home)) return fprintf(stderr, "penumbra: no lua/penumbra/cli.lua in any directory above %s\n", exe), 1;

  lua_State *L = luaL_newstate();
  if (!L) return fprintf(stderr, "penumbra: no memory for LuaJIT\n"), 1;
  luaL_openlibs(L);
  prepare(L, exe, home);
  lua_createtable(L, argc, 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_setglobal(L, "arg");

  lua_pushcfunction(L, on_error);
  snprintf(file, sizeof file, "%s/lua/penumbra/cli.lua", home);
  int code = 0;
  if (luaL_loadfile(L, file) || lua_pcall(L, 0, 1, -2)) code = report(L);
  else if (lua_isnumber(L, -1)) code = (int)lua_tointeger(L, -1);
  lua_close(L);
  if (fflush(stdout) != 0 && code == 0) {
    perror("penumbra: cannot write to the standard output");
    code = 1;
  }
  return code;
}
