"""Places units with Ray: each in a process of its own, wherever the cluster has room. Only this module imports Ray.

Ray runs whatever its clients send, so whoever reaches its ports can run code. Here it listens on this machine alone,
token authentication is on, and nodes without it are refused (docs/threats.md).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (Ray is optional, and its types have gaps)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mystudio.cluster.afar import Afar, Lost
from mystudio.cluster.unit import Unit, node_folder
from mystudio.errors import BadCluster, reason
from mystudio.jobs.types import Job
from mystudio.storage.content import Content

SCHEME = "ray://"
OBJECTS = 80 << 20  # bytes of Ray's object store: a unit's news are small, and files move through the store of content
HEAVY = ("personalize", "reenact", "render", "evaluate")  # kinds that use a GPU where the cluster has one
SAFE = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: of a cluster that starts here
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with this, Ray's servers listen on 127.0.0.1 alone, on every system
    "RAY_worker_register_timeout_seconds": "300",  # a busy machine starts Python slowly
    "RAY_worker_niceness": "0",  # a job's own process yields to other programs already
}


class RayUnit(Unit):
    """A unit in a process of Ray's."""

    def poll(self) -> tuple[str, bytes]:
        """See ``Unit``. Raises RuntimeError: this node takes calls without a token."""
        from ray._private.authentication.authentication_utils import is_token_auth_enabled

        if not is_token_auth_enabled():
            raise RuntimeError("a node takes calls without a token; start it with RAY_AUTH_MODE=token")
        return super().poll()


class Rays:
    """A connection to a cluster, and a runner for the worker (``jobs.running.Runner``).

    Args:
        address: of the cluster's head, "HOST:PORT"; "" = a cluster of this machine alone, which ends with this object.
        store: folder or fsspec URL that all nodes share.
        shares: parts into which the passes of a reenactment or render are divided (``afar.Afar``).
    Raises: BadCluster: Ray is not installed, there is no cluster at the address, or its token is another one.
    """

    def __init__(self, address: str, store: str, shares: int = 1):
        os.environ |= SAFE if address else SAFE | ALONE
        self._ray, self._store, self._shares = _imported(), store, shares
        self._content = Content(store, node_folder() / "cache")
        where: dict[str, Any] = {"address": address} if address else {
            "address": "local", "include_dashboard": False, "object_store_memory": OBJECTS,
        }  # fmt: skip
        try:
            self._ray.init(log_to_driver=False, configure_logging=False, namespace="mystudio", **where)
        except Exception as error:  # Ray has no common root for these
            raise BadCluster(
                f"{address or 'a cluster of this machine'}: expected a Ray cluster that takes this token, got "
                f"{reason(error)}; see docs/cluster.md for how to start one"
            ) from error
        self._unit = self._ray.remote(RayUnit)

    def close(self) -> None:
        """Leave the cluster; units that still run end."""
        self._ray.shutdown()

    def __call__(self, job: Job, studio: Path) -> Afar:
        """Start a job somewhere."""
        return Afar(job, self.place, self._content, self._store, self._shares)

    def room(self) -> int:
        """Return how many heavy units run at once: one a GPU, without a GPU one a processor."""
        found = self._ray.cluster_resources()
        return max(1, int(found.get("GPU", 0) or found.get("CPU", 1)))

    def place(self, kind: str, request: str) -> _Handle:
        """Start a unit; it waits where nothing is free. A lost one is not restarted by Ray: the queue does that."""
        gpu = 1 if kind in HEAVY and self._ray.cluster_resources().get("GPU") else 0
        options = {"num_cpus": 1, "num_gpus": gpu, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        return _Handle(self._ray, self._unit.options(**options).remote(request))


class _Handle:
    """A unit in the cluster (``afar.Handle``)."""

    def __init__(self, ray: Any, unit: Any):
        self._ray, self._unit, self._asked = ray, unit, None

    def poll(self) -> tuple[str, bytes] | None:
        """See ``Handle``."""
        self._asked = self._asked or self._unit.poll.remote()
        try:
            if not self._ray.wait([self._asked], timeout=0)[0]:
                return None
            answer, self._asked = self._ray.get(self._asked), None
        except self._ray.exceptions.RayTaskError as error:
            raise BadCluster(reason(error.cause)) from error
        except self._ray.exceptions.RayError as error:
            raise Lost(f"its node or its process there was lost ({type(error).__name__})") from error
        return answer

    def stop(self) -> None:
        """See ``Handle``."""
        self._unit.stop.remote()

    def kill(self) -> None:
        """See ``Handle``."""
        self._ray.kill(self._unit)


def address_of(text: str) -> str:
    """Return the address in "ray" or "ray://HOST:PORT"; "" = none. Raises BadCluster."""
    address = text.removeprefix(SCHEME).rstrip("/") if text.startswith(SCHEME) else ""
    host, _, port = address.rpartition(":")
    if text != "ray" and not (host and port.isdigit()):
        raise BadCluster(f"expected this-machine, ray or ray://HOST:PORT, got {text!r:.80}; correct --on")
    if host in ("0.0.0.0", "[::]", "::"):
        raise BadCluster(f"{text}: expected the address of one machine, got all of them; name the head's own address")
    return address


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise BadCluster("expected Ray for --on ray, it is not installed; install mystudio[cluster]") from None
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if not is_token_auth_enabled():  # Ray reads its settings once
        raise BadCluster("expected Ray with token authentication, it was imported without; set RAY_AUTH_MODE=token")
    return ray
