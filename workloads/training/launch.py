"""Accelerate's launcher, with one clear error where a node doesn't come instead of a page of its insides.

python -m workloads.training.launch --num_machines 2 ... -m workloads.training.accelerate --run runs/demo
"""

import re
import sys
from typing import Any

from ncdemo.spec.job import EXIT_FAILED
from workloads.run import leave


def main() -> None:
    """Start this node's ranks, once all nodes have met."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed import DistNetworkError, DistStoreError

    args = launch_command_parser().parse_args()
    try:
        launch_command(args)
    except (DistNetworkError, DistStoreError) as error:
        print(f"Error: {missing(args, str(error))}", file=sys.stderr)
        leave(EXIT_FAILED)  # the node may come next time, so the job may be started again


def missing(args: Any, said: str) -> str:
    """Return who didn't come, in one line. `args` are the launcher's own."""
    nodes, rank = int(args.num_machines), int(args.machine_rank)
    joined = re.search(r"(\d+)/\d+ clients joined", said)
    who = f"node 0 ({args.main_process_ip}:{args.main_process_port}) did not answer node {rank}"
    if rank == 0:
        who = f"only {joined[1] if joined else 'some'} of {nodes} nodes came to {args.main_process_ip}:{args.main_process_port}"
    return (
        f"train.rendezvous_timeout_s = {args.rdzv_conf.removeprefix('timeout=')}: {who} in that time; see why the others didn't start "
        "(no capacity, image, network, NCDEMO_NODE_RANK), or raise it"
    )


if __name__ == "__main__":
    main()
