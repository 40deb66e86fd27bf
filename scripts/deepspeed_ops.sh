#!/usr/bin/env bash
# Build DeepSpeed of the lock again, with its operators compiled: a container's read-only root takes no compiler's output.
#
#   scripts/deepspeed_ops.sh .venv cuda     FusedAdam and CPUAdam (needs nvcc), for H100 GPUs
#   scripts/deepspeed_ops.sh .venv cpu      CPUAdam alone
#
# Nothing to do where DeepSpeed isn't in the environment. Its build tools come from the lock as well, with their hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 torch=$2
python=$venv/bin/python
"$python" -c 'import importlib.metadata as m; m.version("deepspeed")' 2>/dev/null || exit 0
uv=$(command -v uv || echo .uv/bin/uv)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# setuptools is locked for `train` (torch 2.13 needs it), DeepSpeed for both lines of torch.
"$uv" export -q --frozen --no-emit-project --no-default-groups --no-annotate --no-header --extra train >"$work/all.txt"
pick() { awk -v name="$1" '/^[a-zA-Z0-9]/ { keep = index($0, name "==") == 1 } keep' "$work/all.txt"; }
pick setuptools >"$work/tools.txt"
pick deepspeed >"$work/deepspeed.txt"
"$uv" pip install -q --python "$python" --target "$work/tools" --no-deps --require-hashes -r "$work/tools.txt"

# DeepSpeed compiles for the CPU it is built on, and the image runs elsewhere: NC H100 nodes and any CPU with AVX-512.
# shellcheck disable=SC2016  # the wrapper expands it
printf '#!/usr/bin/env bash\nexec c++ "${@/-march=native/-march=x86-64-v4}"\n' >"$work/c++"
chmod +x "$work/c++"
# No GPU is here while an image is built, so DeepSpeed is told what to build for. 9.0: H100.
export DS_ACCELERATOR=$torch DS_BUILD_CPU_ADAM=1 TORCH_CUDA_ARCH_LIST=9.0 CXX=$work/c++ MAX_JOBS=${MAX_JOBS:-$(nproc)}
[ "$torch" = cpu ] || export DS_BUILD_FUSED_ADAM=1
PATH=$PWD/$venv/bin:$PATH PYTHONPATH=$work/tools "$uv" pip install -q --python "$python" --no-deps --no-cache --reinstall \
  --no-build-isolation --require-hashes -r "$work/deepspeed.txt"

cd "$work"
CHECK='
import sys
from deepspeed.git_version_info import installed_ops
wanted = ["cpu_adam", *(["fused_adam"] if sys.argv[1] == "cuda" else [])]
missing = [name for name in wanted if not installed_ops.get(name)]
sys.exit(f"DeepSpeed was built without {missing}" if missing else 0)
'
case "$venv" in /*) ;; *) python=$OLDPWD/$python ;; esac
"$python" -c "$CHECK" "$torch"
