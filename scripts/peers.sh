#!/bin/bash
# scripts/peers.sh: today's PyTorch, the peer of `make bench`, in a folder outside the tree: $PENUMBRA_PEERS, else ../peers.
# What is there stays (remove the folder for a newer one). About 3 GB, through pip; nothing of Penumbra needs it.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${PENUMBRA_PEERS:-../peers}
python=$folder/v/bin/python

version() { "$python" -c 'import torch; print(torch.__version__)' 2>/dev/null; }
if [ -x "$python" ] && found=$(version); then
  echo "PyTorch $found is in $folder"
  exit 0
fi
mkdir -p "$folder"
if [ ! -x "$python" ] && ! python3 -m venv "$folder/v" >"$folder/pip.log" 2>&1; then
  echo "No virtual environment can be made in $folder/v; on Debian: apt-get install python3-venv. It said:" >&2
  tail -n 5 "$folder/pip.log" >&2
  exit 1
fi
echo "Installing PyTorch into $folder (about 3 GB) ..."
if ! "$python" -m pip install torch numpy >"$folder/pip.log" 2>&1 || ! found=$(version); then
  echo "The installation failed; the end of $folder/pip.log:" >&2
  tail -n 10 "$folder/pip.log" >&2
  exit 1
fi
echo "PyTorch $found is in $folder"
