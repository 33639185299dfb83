"""Ctrl-C ends a command without a traceback, even while it is still importing."""

import signal
import subprocess
import sys


def test_an_interrupt_while_importing_is_no_traceback() -> None:
    # Whatever is imported first inside of main() interrupts, as a person may do just then.
    program = (
        "import os, signal, sys\n"
        "from reconciler.__main__ import main\n"
        # A shell starts what it puts into the background with the signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
