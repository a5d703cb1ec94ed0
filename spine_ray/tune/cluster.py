"""Ray, started on this machine or joined at an address."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ray

from spine_ray.workers.layout import cores_here

_OBJECT_STORE_BYTES = 128 * 2**20
"""Hardly used: pixels come from a memory-mapped file."""
_ANSWER_S = 10.0
"""How long a cluster may take to answer at all, s."""
_PAUSE_S = 0.02
_NICENESS = "RAY_worker_niceness"
"""Ray starts its workers at niceness 15: beside one busy process they would wait minutes for a share of its core."""


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Start ray in this process, or join a cluster, for the time of the block.

    Raises:
        ValueError: If no cluster answers at the address.
    """
    sigterm = signal.getsignal(signal.SIGTERM)
    if address is None:
        ray.init(
            address="local",  # else it would join whatever cluster was started on this machine
            num_cpus=cores_here(),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _system_config={"worker_niceness": int(os.environ.get(_NICENESS, "0"))},
        )
    else:
        try:
            _knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except OSError as error:
            locked = ": it wants its token (RAY_AUTH_MODE=token)" if "InvalidAuthToken" in str(error.__cause__) else ""
            raise ValueError(f"--address {address}: no Ray cluster answers there{locked}") from error
    signal.signal(signal.SIGTERM, sigterm)  # ray has put its own handler there, which aborts
    try:
        yield
    finally:
        _shut_down(sigterm)


def _knock(address: str) -> None:
    """See whether anybody listens at an address such as 10.0.0.1:6379: ray itself goes on asking for minutes.

    Raises:
        OSError: If nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()


def _shut_down(sigterm: Any) -> None:
    """End ray while this process still heeds SIGTERM: somewhere on the way ray gives its place back to the system."""
    closing = threading.Thread(target=ray.shutdown, name="ray shutdown")
    closing.start()
    while closing.is_alive():
        signal.signal(signal.SIGTERM, sigterm)
        closing.join(_PAUSE_S)
    signal.signal(signal.SIGTERM, sigterm)
