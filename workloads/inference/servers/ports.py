"""Ports on this machine: a free one, or a clear word that one is taken."""

import socket

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import HOST


class PortTaken(SpecError):
    """Someone listens there; another port may be free."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Raise SpecError when someone listens on the port."""
    with socket.socket() as probe:
        # As servers do it: what a closed connection left behind doesn't count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(f"port {port}: cannot be used ({error.strerror}); stop what listens there, or leave the port out") from None
