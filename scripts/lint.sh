#!/bin/bash
# scripts/lint.sh: the floors, luacheck, the C format, Clang's warnings (GCC's are the build's own: both are errors), and
# whether docs/operations.md says what the registry says. Shows every finding, not only the first kind.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
step() {
  local title=$1
  shift
  if output=$("$@" 2>&1); then
    echo "ok      $title"
  else
    echo "FAILED  $title"
    echo "$output"
    status=1
  fi
}
step "floors" build/penumbra scripts/floors.lua
step "luacheck" luacheck -q --no-color .
c_files=$(git ls-files '*.c' '*.h' 2>/dev/null || find core lua gpu -name '*.[ch]')
step "clang-format" clang-format-14 --dry-run -Werror $c_files
step "warnings: clang" build/penumbra scripts/clang_check.lua
step "docs/operations.md" build/penumbra scripts/operations_doc.lua --check
step "shell scripts" bash -n scripts/*.sh .ci/run
exit $status
