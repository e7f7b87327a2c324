"""The processes that serve, kept at their number. It imports uvicorn: import it only to serve."""

from __future__ import annotations

import logging

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

log = logging.getLogger("agentsight.server")


class Workers(Multiprocess):
    """uvicorn's supervisor, but it asks the kernel whether a worker lives, and not the worker.

    uvicorn's sends each a ping and waits. One that is killed under that question never answers, and
    for the whole of the timeout no other is replaced and no signal is heard. The ping would tell
    little: a thread of its own answers it, also where the event loop stands still.
    """

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died; end them all where one could not start."""
        if self.should_exit.is_set():
            return
        for index, worker in enumerate(self.processes):
            if worker.process.is_alive():
                continue
            worker.kill()  # closes its pipes
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                self.should_exit.set()
                return
            log.warning("a worker died, another takes its place: exit code %s", worker.exitcode)
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()
