"""What the container image starts: finds the role in the mounted spec, checks the GPU driver, and runs the job.

    python -m workloads.entrypoint --spec /etc/ncdemo/run.yaml
    python -m workloads.entrypoint exporter      # beside it, in a container of its own: its figures for Prometheus

Ends as workloads.job does: 0 done, 1 failed, 2 a mistake that starting again can't mend (an old driver too), 75 stopped.
"""

import logging
import os
import sys

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.train import TrainSpec
from workloads import job, preflight

LOG = logging.getLogger("ncdemo.job")
ROLES: dict[str, dict[str, str]] = {
    # Batches differ in length; segments that grow leave no holes that nothing fits into.
    "train": {"PYTORCH_ALLOC_CONF": "expandable_segments:True"},
    # An engine has memory pools of its own, and vLLM's sleep mode refuses such segments.
    "bench": {},
}
"""A spec's kind -> the environment that its role has unless the container's says otherwise."""


def ready(spec: TrainSpec | BenchSpec) -> None:
    """Prepare this process for the role. Raise SpecError when the driver can't run what is installed."""
    LOG.info("role %s, from the spec", spec.kind)
    for name, value in ROLES[spec.kind].items():
        os.environ.setdefault(name, value)
    LOG.info("%s", preflight.check(preflight.torch_build(), preflight.driver()))


def main() -> int:
    """Run the role; return the exit code."""
    if sys.argv[1:2] == ["exporter"]:
        from workloads.metrics.exporters import role  # no job needs the exporter's web server

        return role.main(sys.argv[2:])
    return job.main(ready, "python -m workloads.entrypoint")


if __name__ == "__main__":
    job.leave(main())
