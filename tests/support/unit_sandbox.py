"""Becomes what systemd would make of a unit's sandbox, as far as this can be done without it, then runs the program.

`unshare --mount python unit_sandbox.py PLAN`: PLAN is JSON with `root` (a system's file system, seen read-only),
`binds` (what is put into it: target -> [source, writable]), `uid`, `groups`, `umask`, `allow` (names of system calls,
all others are refused), `families` (numbers of socket families) and `command`. It imports nothing of ours.
"""

import ctypes
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LAST_CAPABILITY = 40
SCMP_ACT_ALLOW, SCMP_CMP_EQ = 0x7FFF0000, 4


def refuse(number):
    """The action that answers a system call with an error (SCMP_ACT_ERRNO)."""
    return 0x00050000 | number


class Compare(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def furnish(plan):
    """The file system as ProtectSystem=strict, PrivateTmp and PrivateDevices leave it."""
    root = plan["root"]
    mount("--make-rprivate", "/")
    mount("--bind", root, root)
    mount("--bind", "/proc", f"{root}/proc")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", f"{root}/dev")
    for name in ("null", "zero", "random", "urandom"):
        Path(f"{root}/dev/{name}").touch()
        mount("--bind", f"/dev/{name}", f"{root}/dev/{name}")
    mount("-o", "remount,bind,ro", root)
    for target, (source, writable) in plan["binds"].items():
        mount("--bind", source, f"{root}{target}")
        if not writable:
            mount("-o", "remount,bind,ro", f"{root}{target}")


def check(code, what):
    if code != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {code}")


def confine(plan, libc, seccomp):
    """The user, no capabilities and none to come, then the filter of system calls."""
    os.chroot(plan["root"])
    os.chdir("/")
    for capability in range(LAST_CAPABILITY + 1):
        check(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "CapabilityBoundingSet")
    os.setgroups(plan["groups"])
    os.setgid(plan["uid"])
    os.setuid(plan["uid"])
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "NoNewPrivileges")
    rules = seccomp.seccomp_init(refuse(errno.EPERM))
    for name in plan["allow"]:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0 or name == "socket":
            continue  # not one of this machine's
        seccomp.seccomp_rule_add_array(ctypes.c_void_p(rules), SCMP_ACT_ALLOW, number, 0, None)
    socket = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in plan["families"]:
        wanted = Compare(0, SCMP_CMP_EQ, family, 0)
        add = seccomp.seccomp_rule_add_array
        check(add(ctypes.c_void_p(rules), SCMP_ACT_ALLOW, socket, 1, ctypes.byref(wanted)), "RestrictAddressFamilies")
    check(seccomp.seccomp_load(ctypes.c_void_p(rules)), "SystemCallFilter")


def main():
    plan = json.loads(Path(sys.argv[1]).read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    os.umask(plan["umask"])
    furnish(plan)
    confine(plan, libc, seccomp)
    os.execv(plan["command"][0], plan["command"])


if __name__ == "__main__":
    main()
