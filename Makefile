# make demo: everything end to end on this machine.   make test: what CI runs.
.PHONY: setup demo test lint lock docs audit check-manifests
.PHONY: test-unsloth test-ui test-sglang test-image
.PHONY: bench-packing bench-sampler bench-soak bench-cli bench-trl bench-resume bench-checkpoint bench-loop bench-load bench-sweep bench-export bench-report bench-preview

setup:
	@scripts/setup_env.sh

demo: setup
	@.venv/bin/ncdemo demo

test: setup
	@.venv/bin/python -m pytest -n 2 --dist loadscope -m "not slow and not gpu and not azure"

# Unsloth has a set-up of its own: a gigabyte that nothing else needs.
test-unsloth:
	@scripts/setup_env.sh --extra train --extra demo --extra unsloth --venv .venv-unsloth
	@.venv-unsloth/bin/python -m pytest tests/training/test_unsloth.py

# So has MLflow's server, also as the cluster starts it, on a blob service where Azurite is; CI runs it after `make test`.
test-ui:
	@scripts/setup_env.sh --extra mlflow --venv .venv-mlflow
	@.venv-mlflow/bin/python -m pytest tests/cli/test_ui.py tests/metrics/test_mlflow_runs.py

# SGLang's real engine and server without a GPU: an environment of its own, 3 GB; four to six minutes on two cores.
test-sglang: setup
	@scripts/setup_sglang_cpu.sh
	@.venv/bin/python -m pytest -m slow -s tests/inference/test_sglang_offline.py tests/inference/test_sglang_server.py

# On a machine with a CUDA GPU: the switches of train.speed, packed rows, MFU of a short run.
.PHONY: test-gpu
test-gpu: setup
	@.venv/bin/python -m pytest -m gpu -rs -s tests/gpu

# The Dockerfile built and run without Docker; as root, with Debian's buildah and mmdebstrap.
test-image: setup
	@.venv/bin/python -m pytest -m slow tests/image

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

# After a change of dependencies: lock again and take the hosts out (docs/packaging.md).
lock:
	uv lock && python3 scripts/lock_hosts.py && uv lock && python3 scripts/lock_hosts.py

# Known vulnerabilities of every locked package; 2: not audited, e.g. where no advisories are reached.
audit:
	@.venv/bin/python scripts/audit.py

bench-packing: setup
	@.venv/bin/python benchmarks/packing.py

bench-sampler: setup
	@.venv/bin/python benchmarks/sampler_overhead.py

# Whether samples are lost at 100 Hz on a busy machine; the bar is an hour.
bench-soak: setup
	@.venv/bin/python -m benchmarks.sampler_soak --seconds 3600

bench-cli: setup
	@.venv/bin/python benchmarks/cli_start.py

bench-trl: setup
	@.venv/bin/python benchmarks/trl_compare.py

# kill -9 fifty times with one rank and fifty with two; several minutes.
bench-resume: setup
	@.venv/bin/python benchmarks/kill_soak.py --kills 50 --ranks 1
	@.venv/bin/python benchmarks/kill_soak.py --kills 50 --ranks 2

bench-checkpoint: setup
	@.venv/bin/python -m benchmarks.checkpoint_stall

bench-loop: setup
	@.venv/bin/python -m benchmarks.loop_overhead

# Ours beside vLLM's client, aiperf and guidellm, as far as they are installed (benchmarks/load_tools.py says how); five minutes.
bench-load: setup
	@.venv/bin/python -m benchmarks.client_efficiency
	@.venv/bin/python -m benchmarks.client_truth

# kill -9 a sweep twenty times; ten minutes to over half an hour, by the machine.
bench-sweep: setup
	@.venv/bin/python benchmarks/sweep_kills.py --kills 20

# Ten thousand runs through a Pushgateway (Debian's prometheus-pushgateway).
bench-export: setup
	@.venv/bin/python -m benchmarks.export_cardinality --runs 10000

# A run with a million samples: the report's time and memory, and its page in Chromium.
bench-report: setup
	@.venv/bin/python -m benchmarks.report_million

bench-preview: setup
	@.venv/bin/python benchmarks/stack_preview.py

# Checkov over what the stacks render; not a part of make test, as it is a large tool of its own.
check-manifests: setup
	@scripts/check_manifests.sh

# After a change of specs, commands, metrics, sizes or .env.example: docs/reference/ says what the source says.
docs: setup
	@.venv/bin/python -m scripts.reference
