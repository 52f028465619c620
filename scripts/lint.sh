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
step "circles" build/penumbra scripts/circles.lua
step "luacheck" luacheck -q --no-color .

# The places where a file would change, a line a file.
c_format() {
  local findings
  findings=$(find core lua gpu -name '*.[ch]' -o -name '*.cu' -o -name '*.cpp' | xargs clang-format-14 --dry-run -Werror 2>&1) && return 0
  grep -oE '^[^: ]+:[0-9]+' <<<"$findings" | sort -u | awk -F: '{ n[$1]++; if (n[$1] <= 5) lines[$1] = lines[$1] " " $2 }
    END { for (f in n) print f ": " n[f] " lines:" lines[f] }' | sort
  echo "make fmt mends them"
  return 1
}
step "clang-format" c_format
step "warnings: clang" build/penumbra scripts/clang_check.lua
step "docs/operations.md" build/penumbra scripts/operations_doc.lua --check
step "shell scripts" bash -n scripts/*.sh .ci/run
exit $status
