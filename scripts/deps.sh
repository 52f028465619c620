#!/bin/bash
# scripts/deps.sh WHAT: brings the Debian packages that a door of the Makefile needs (build, test, check, lint, docs).
# Installs what is missing as root, or through sudo when it asks for no password; else prints the line to run and stops.
set -euo pipefail

build="gcc g++ make cmake pkg-config libc6-dev luajit libluajit-5.1-dev lua-cjson lua-filesystem lua-readline
       libopenblas-dev libspng-dev libcairo2-dev libstb-dev zlib1g-dev"
case "${1:-}" in
  build) wanted=$build ;;
  test) wanted="$build lua-busted ffmpeg" ;;
  check) wanted="$build lua-busted ffmpeg valgrind" ;;
  lint) wanted="$build lua-check clang clang-format-14" ;;
  docs) wanted="$build lua-ldoc" ;;
  *) echo "usage: scripts/deps.sh build|test|check|lint|docs" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
  # Not Debian: the libraries must be there under their pkg-config names; packages are the user's to choose.
  missing=""
  for module in luajit openblas spng cairo zlib; do
    pkg-config --exists "$module" 2>/dev/null || missing="$missing $module"
  done
  [ -z "$missing" ] && exit 0
  echo "Missing libraries:$missing. On Debian 12 these packages bring everything:" >&2
  echo "  $(echo $wanted)" >&2
  exit 1
fi

missing=""
for package in $wanted; do
  case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
    "install ok installed"*) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -z "$missing" ] && exit 0

as=""
if [ "$(id -u)" != 0 ]; then
  if sudo -n true 2>/dev/null; then
    as="sudo -n"
  else
    echo "These packages are missing; this line installs them:" >&2
    echo "  sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
  fi
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
install="$as apt-get install -y -q --no-install-recommends$missing"
# Package lists may be absent (a fresh image) or old: fetch them and try again.
$install </dev/null >/tmp/penumbra-deps.$$ 2>&1 || { $as apt-get update -q </dev/null >/dev/null 2>&1 || true; $install </dev/null >/tmp/penumbra-deps.$$ 2>&1; } || {
  tail -n 20 "/tmp/penumbra-deps.$$" >&2
  echo "The installation failed; the line was: $install" >&2
  exit 1
}
rm -f "/tmp/penumbra-deps.$$"
