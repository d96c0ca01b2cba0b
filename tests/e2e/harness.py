"""What the end-to-end tests share: starting paceline with any number of ranks, and reading what it left."""
import json
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def launcher(ranks):
    if ranks == 1:
        return []
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", "--oversubscribe", *root, "-n", str(ranks)]


class Bench:
    """A folder of its own and the program under test."""

    def __init__(self, program):
        self.program = os.path.abspath(program)
        self.folder = tempfile.TemporaryDirectory(prefix="paceline-e2e-")
        self.dir = self.folder.name
        self.checks = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def run(self, *argv, ranks=1, code=0, timeout=120, env=None, cwd=TOP):
        """Runs paceline; the exit code must be `code` (None: any; mpirun may hide a rank's, see CONTRACTS §4)."""
        done = subprocess.run([*launcher(ranks), self.program, *argv], text=True, capture_output=True, timeout=timeout, cwd=cwd,
                              env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL)
        if code is not None and done.returncode != code:
            sys.exit(f"FAIL: {' '.join(argv)}: exit code {done.returncode}, expected {code}\nstdout:\n{done.stdout}\nstderr:\n{done.stderr}")
        self.checks += 1
        return done

    def status(self, out):
        with open(out + ".status.json") as f:
            return json.load(f)

    def table(self, out, name):
        report = out + ".report"
        self.run("report", out, "-o", report)
        with open(os.path.join(report, "tables", name + ".json")) as f:
            return json.load(f)["rows"]

    def expect(self, ok, text):
        self.checks += 1
        if not ok:
            sys.exit(f"FAIL: {text}")
