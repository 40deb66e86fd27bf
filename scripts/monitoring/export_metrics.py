#!/usr/bin/env python3
"""Push a run's last hardware sample and its figures to a Prometheus Pushgateway: `ncdemo metrics export` for cron and CI.

.venv/bin/python scripts/monitoring/export_metrics.py runs/demo --gateway http://127.0.0.1:9091
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # the checkout, in place of this folder

from workloads.metrics.exporters.__main__ import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
