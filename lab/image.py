# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems by mmdebstrap, and a cache by the hash of a recipe; the image of container nodes (Debian 13)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.host import LabError, run

CACHE = Path("/var/cache/fastpath-lab")
SUITE = "trixie"

_BASE = (
    "systemd-sysv", "dbus", "openssh-server", "python3", "iproute2", "libbpf1", "iputils-ping", "procps",
)  # fmt: skip
_PODMAN = ("podman", "crun", "netavark", "nftables", "ca-certificates", "busybox-static")

# Nothing here serves a lab, and each costs boot time or changes files behind a test's back.
_MASKED = (
    "console-getty.service",
    "getty@.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-modules-load.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "podman-auto-update.timer",
    "netavark-dhcp-proxy.service",
    "netavark-dhcp-proxy.socket",
)

_HOOKS = (
    # Every lab brings its own host key and every node its own identity.
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/etc/resolv.conf; : > "$1"/etc/machine-id',
    "for unit in " + " ".join(_MASKED) + '; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done',
    'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/var/lib/apt/lists "$1"/var/log/*',
    # Nothing is to be updated at the first boot.
    'touch "$1"/etc/.updated "$1"/var/.updated',
)

# A root file system to import without a network: busybox and nothing else.
_PODMAN_HOOK = (
    'd="$1"/usr/share/fastpath-lab; mkdir -p "$d"/root/bin "$d"/root/tmp "$d"/root/etc; '
    'cp "$1"/bin/busybox "$d"/root/bin/; '
    'for a in $(chroot "$1" busybox --list); do [ "$a" = busybox ] || ln -s busybox "$d/root/bin/$a"; done; '
    'tar -C "$d"/root -cf "$d"/busybox.tar . && rm -rf "$d"/root'
)


@dataclass(frozen=True)
class Recipe:
    """All that decides an image's content, except the mirror's state on the day."""

    suite: str
    architecture: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...]

    @property
    def title(self) -> str:
        """For a person who waits for it."""
        return f"Debian {self.suite}: about a minute"

    @property
    def options(self) -> tuple[str, ...]:
        """More options of mmdebstrap."""
        return ()

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def recipe(flavour: str) -> Recipe:
    """The recipe of a flavour: minimal or podman."""
    podman = flavour == "podman"
    return Recipe(
        suite=SUITE,
        architecture=platform.machine(),
        packages=_BASE + (_PODMAN if podman else ()),
        hooks=_HOOKS + ((_PODMAN_HOOK,) if podman else ()),
    )


def ensure(flavour: str, report: Callable[[str], None]) -> Path:
    """Path of the root file system of container nodes; builds it if the cache lacks it."""
    wanted = recipe(flavour)
    return cached(wanted, lambda target: bootstrap(wanted, target, report), report)


def cached(wanted: Recipe, build: Callable[[Path], None], report: Callable[[str], None]) -> Path:
    """Path of what `build` makes of a recipe at the path that it gets; built once even if many ask."""
    path = CACHE / wanted.digest
    if path.is_dir():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".lock-{wanted.digest}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another lab is building this image: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            # Beside the final place, then renamed: what has the final name is complete.
            unfinished = CACHE / f".build-{wanted.digest}"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a killed build: the lock is ours, so nobody uses it
            report(f"building image {path.name} ({wanted.title})")
            build(unfinished)
            unfinished.rename(path)
    return path


def bootstrap(wanted: Recipe, target: Path, report: Callable[[str], None]) -> None:
    """Make the root file system of a recipe at a path; LabError with the end of the log if it fails."""
    began = time.monotonic()
    log = CACHE / f"{wanted.digest}.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            _command(wanted, target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            file.flush()
            if line.startswith("I: ") and "hook" not in line:
                report(f"  {time.monotonic() - began:4.0f} s  {line[3:].strip()}")
    if process.returncode:
        tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-15:])
        raise LabError(f"cannot build the image, mmdebstrap ended with {process.returncode} (log: {log}):\n{tail}")


def _command(wanted: Recipe, target: Path) -> list[str]:
    # In its own pid and mount namespace, tied to this process: a killed build leaves no process and no mount.
    isolated = [
        "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
        "env", "INITRD=No",  # what a kernel brings along to boot with is not used
    ]  # fmt: skip
    options = [f"--customize-hook={hook}" for hook in wanted.hooks]
    proxy = run(["apt-config", "shell", "URL", "Acquire::http::Proxy"]).stdout.partition("=")[2].strip().strip("'")
    if proxy:
        options.append(f'--aptopt=Acquire::http::Proxy "{proxy}"')
    return [
        *isolated, "mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase",
        f"--include={','.join(wanted.packages)}", *options, *wanted.options, wanted.suite, str(target), *_mirror(),
    ]  # fmt: skip


def _mirror() -> list[str]:
    """The mirror that this machine's own release comes from; none lets mmdebstrap take its default."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        return []
    form = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    command = ["apt-get", "indextargets", "--no-release-info", "--format", form, "Created-By: Packages"]
    names = {release.get("VERSION_CODENAME"), "stable", "testing", "unstable", "sid"}
    for line in run(command).stdout.splitlines():
        suite, component, uri = line.split(" ", 2)
        if suite in names and component == "main":
            return [uri.rstrip("/")]
    return []
