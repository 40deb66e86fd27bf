"""Send a run's metrics to a Prometheus Pushgateway or Azure Monitor, or take them away: what `ncdemo metrics` starts.

python -m workloads.metrics.exporters export runs/demo --gateway http://127.0.0.1:9091
python -m workloads.metrics.exporters export runs/demo --azure-monitor identity
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.follow import RunState
from ncdemo.spec.job import NCDEMO_PUSHGATEWAY
from ncdemo.spec.paths import runs_dir
from workloads.metrics.exporters.azure_monitor import AUTHS, Auth, AzureMonitor, connection_string
from workloads.metrics.exporters.azure_spool import Batches
from workloads.metrics.exporters.export import KEEP_RUNS, dry_run, export_run, resolve_gateway, retire_run, spool_dir
from workloads.metrics.exporters.gateway import Gateway, Unreachable
from workloads.metrics.exporters.spool import Spool

EXIT_KEPT = 75
"""EX_TEMPFAIL: the gateway is down; what was to be sent waits on disk."""


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    args = _parser().parse_args(arguments)
    try:
        if getattr(args, "dry_run", False):
            print(dry_run(args.run))
            return 0
        if auth := getattr(args, "azure_monitor", None):
            return _azure(args, auth)
        url = args.gateway or resolve_gateway("default")
        if url is None:
            raise SpecError(f"no Pushgateway is named; give --gateway, e.g. http://127.0.0.1:9091, or set {NCDEMO_PUSHGATEWAY}")
        return int(args.act(args, url))
    except Unreachable as error:
        print(f"Error: {error}; start it, or give another --gateway", file=sys.stderr)
        return EXIT_KEPT
    except SpecError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 2


def _export(args: argparse.Namespace, url: str) -> int:
    if export_run(args.run, url, args.within_s, args.keep):
        print(f"{Gateway(url).shown}: {args.run.resolve().name} is there")
        return 0
    return _kept(url)


def _retire(args: argparse.Namespace, url: str) -> int:
    count, now = retire_run(args.run, url, args.within_s)
    if not now:
        return _kept(url)
    print(f"{Gateway(url).shown}: {count} groups of {Path(args.run).name} deleted")
    return 0


def _send(args: argparse.Namespace, url: str) -> int:
    sent, left = Spool(spool_dir(), Gateway(url)).send(args.within_s)
    print(f"{Gateway(url).shown}: {sent} groups sent, {left} still wait")
    return EXIT_KEPT if left else 0


def _azure(args: argparse.Namespace, auth: Auth) -> int:
    """Export or send; a run to export is written down first, so one exit code serves both."""
    connection = connection_string()
    sender, batches = AzureMonitor(connection, auth), Batches(runs_dir(), connection)
    if args.act is _export:
        state = RunState(args.run)
        state.update()
        if not batches.keep(state):
            raise SpecError(f"{args.run}/result.json can't be read; use the version of ncdemo that wrote it")
    sent, left = batches.send(sender, args.within_s)
    print(f"{sender.shown}: {sent} batches sent, {left} still wait")
    if left:
        print(f"{batches.why}: kept in {batches.folder}; send it later with: ncdemo metrics send --azure-monitor {auth}", file=sys.stderr)
    return EXIT_KEPT if left else 0


def _kept(url: str) -> int:
    gateway = Gateway(url)
    # The address that was given, unless the variable says it; a password in it is not shown.
    given = "" if url == os.environ.get(NCDEMO_PUSHGATEWAY) else f" --gateway {gateway.shown}"
    print(f"{gateway.shown} does not answer: kept in {spool_dir()}; send it later with: ncdemo metrics send{given}", file=sys.stderr)
    return EXIT_KEPT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workloads.metrics.exporters", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, act, words in (
        ("export", _export, "push a run's last sample and figures"),
        ("retire", _retire, "delete a run"),
        ("send", _send, "send what waits on disk"),
    ):
        command = commands.add_parser(name, help=words)
        command.set_defaults(act=act)
        if name != "send":
            command.add_argument(
                "run", type=Path if name == "export" else str, help="run directory" + ("" if name == "export" else ", or id")
            )
        if name == "export":
            command.add_argument("--dry-run", action="store_true", help="print what would be pushed; push nothing")
            command.add_argument("--keep", type=int, default=KEEP_RUNS, help=f"runs that the gateway keeps (default: {KEEP_RUNS})")
        command.add_argument("--gateway", help=f"the Pushgateway's URL (default: {NCDEMO_PUSHGATEWAY})")
        if name != "retire":
            words = "to Azure Monitor instead, as this machine's Azure identity or with the connection string's key"
            command.add_argument("--azure-monitor", choices=AUTHS, help=words)
        command.add_argument("--within-s", type=float, default=10.0, help="try for so long (default: 10)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
