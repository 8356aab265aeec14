"""Build the site with warnings as errors: python book/build.py [ROOT]. Prints what happens and what went wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# A remark that newer kernels make on every start; the book's kernels listen on this machine alone.
NOISE = "Kernel is running over TCP without encryption"


def build(root: Path) -> int:
    """Build the site of `root` into _build/html; return the exit status."""
    run = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", run, "build", str(root), "-W", "-n", "--keep-going", "-q"]
    paths = os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    # Into a file: a pipe would keep this waiting for whatever a notebook left running.
    with tempfile.TemporaryFile("w+", encoding="utf8", errors="replace") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
        log.seek(0)
        output = "".join(line for line in log if NOISE not in line)
    if status or not (root / "_build" / "html" / "index.html").is_file():
        status = status or 1
        print(output, file=sys.stderr)
        # A page with a warning is not read again on the next run, which would then pass: forget what was read.
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
        print(f"The book was not built (exit status {status}); what is wrong stands above.", file=sys.stderr)
    else:
        print(f"The site is in {root / '_build' / 'html'}")
    return status


if __name__ == "__main__":
    print("Executing what is new in the notebooks and building the site; the first time takes minutes.", flush=True)
    raise SystemExit(build(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()))
