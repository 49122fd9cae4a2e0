# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed, or fails, before any chosen change that it makes to the kernel or to a file."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.kernel import libbpf, rtnl

_BPF_CHANGES = (
    "bpf_object__load", "bpf_obj_pin", "bpf_link_create", "bpf_link_update", "bpf_link_detach", "bpf_map_update_elem",
    "bpf_map_update_batch", "bpf_map_delete_elem", "bpf_map_delete_batch", "bpf_prog_test_run_opts",
)  # fmt: skip
_FILE_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    """As the kernel does, which says why it does not do a thing."""
    raise OSError(errno.ENOMEM, "injected")


class Fuse:
    """Counts the changes of this process, and before number `limit` does something to it."""

    def __init__(self, limit: int, blow: Callable[[], None]) -> None:
        self.limit, self.count, self._blow = limit, 0, blow

    def burn(self) -> None:
        self.count += 1
        if self.count == self.limit:
            self._blow()

    def light(self) -> None:
        """From now on."""
        library = libbpf.library()
        for name in _BPF_CHANGES:
            setattr(library, name, self._before(getattr(library, name)))
        rtnl.Netlink.request = self._before(rtnl.Netlink.request)  # type: ignore[method-assign]
        sys.addaudithook(self._audit)

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def burning(*arguments: Any) -> Any:
            self.burn()
            return function(*arguments)

        return burning

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writing or event in _FILE_CHANGES:
            self.burn()


def mortal(limit: int, work: Callable[[], object], blow: Callable[[], None] = kill) -> int:
    """Do the work, killed before its change number `limit`; the number of changes if it came to its end."""
    fuse = Fuse(limit, blow)
    fuse.light()
    work()
    fuse.limit = 0
    return fuse.count
