#!/bin/bash
# scripts/install.sh: copies what make build made: $PREFIX/bin/penumbra, lib/libpenumbra.so, include/penumbra.h and
# share/penumbra (Lua, models, recipes). The program finds its share directory from its own path. With LUADIR (LuaRocks) a
# plain LuaJIT finds `require "penumbra"` too; with BINDIR the program is linked there.
set -euo pipefail
cd "$(dirname "$0")/.."
to="${DESTDIR:-}${PREFIX:-/usr/local}"
share="$to/share/penumbra"

install -D -m 755 build/penumbra "$to/bin/penumbra"
install -D -m 755 build/libpenumbra.so "$to/lib/libpenumbra.so"
install -D -m 755 build/libpenumbra_worker.so "$to/lib/libpenumbra_worker.so"
install -D -m 644 core/penumbra.h "$to/include/penumbra.h"
for folder in lua models recipes; do
  [ -d "$folder" ] || continue
  find "$folder" -name '*.lua' | while read -r file; do install -D -m 644 "$file" "$share/$file"; done
done
[ -z "${BINDIR:-}" ] || { mkdir -p "$BINDIR" && ln -sf "$to/bin/penumbra" "$BINDIR/penumbra"; }
if [ -n "${LUADIR:-}" ]; then
  mkdir -p "$LUADIR"
  cat > "$LUADIR/penumbra.lua" <<LUA
-- The package lies in $share, with its models and recipes; this file only leads there.
local home = "$share"
package.path = home .. "/lua/?.lua;" .. home .. "/lua/?/init.lua;" .. home .. "/?.lua;" .. package.path
return assert(loadfile(home .. "/lua/penumbra/init.lua"))("penumbra")
LUA
fi
echo "installed: $to/bin/penumbra"
