#!/usr/bin/env bash
# Build .venv-sglang: SGLang's real server for a machine without a GPU, to test our adapter against it. Never for speed.
#
#   scripts/setup_sglang_cpu.sh && .venv/bin/python -m pytest -m slow tests/inference/test_sglang_server.py
#
# Its CUDA libraries are left out (tests/inference/sglang_cpu/overrides.txt); tests/inference/sglang_cpu/site stands in for two of
# them. Versions are not locked beyond SGLang, torch and torchvision; `uv pip list` in the folder says what came. About 3 GB.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "setup_sglang_cpu.sh: $*" >&2; exit 1; }

venv=.venv-sglang own=tests/inference/sglang_cpu
version=$(sed -nE 's/^sglang = \["sglang==([0-9.]+).*/\1/p' pyproject.toml)
torch=$(sed -nE 's/^torch==(.*)/\1/p' "$own/overrides.txt")
uv=$(command -v uv || echo "$PWD/.uv/bin/uv")
[ -x "$uv" ] || die "no uv. Remedy: make setup, which fetches one"
if [ "$(cat "$venv/.done" 2>/dev/null)" = "$version $(cksum <"$own/overrides.txt")" ]; then
  echo "ready: $venv (SGLang $version)" >&2
  exit
fi
[ -x "$venv/bin/python" ] || "$uv" venv -q --python 3.11 "$venv" || die "no Python 3.11. Remedy: uv python install 3.11"

install=("$uv" pip install -q --python "$venv/bin/python" --compile-bytecode)
# The CPU build of torch first, from a folder of wheels if pip knows one: the index's own is the CUDA build.
links=${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || python3 -m pip config get :env:.find-links 2>/dev/null || true)}
{ [ -n "$links" ] && "${install[@]}" --find-links "$links" "torch==$torch"; } ||
  "${install[@]}" --torch-backend cpu "torch==${torch%+cpu}" ||
  die "no CPU build of torch ${torch%+cpu}. Remedy: put its wheel in a folder and set PIP_FIND_LINKS to it"
"${install[@]}" ${links:+--find-links "$links"} --overrides "$own/overrides.txt" "sglang==$version" accelerate ||
  die "SGLang $version could not be installed. Remedy: see uv's message above"
# SGLang imports torchvision's Python; its compiled part wants CUDA, and site/ defines what is missed.
"${install[@]}" --no-deps torchvision==0.28.0 || die "torchvision could not be installed. Remedy: see uv's message above"
echo "$version $(cksum <"$own/overrides.txt")" >"$venv/.done"
echo "ready: $venv (SGLang $version)" >&2
