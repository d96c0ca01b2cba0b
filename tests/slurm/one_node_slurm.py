"""A real Slurm of one node, from Debian's packages, in a folder of its own: munged, slurmctld and slurmd as root on the loopback
address, free ports, nothing outside the folder touched. Used as a context manager."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time


def why_not():
    """A reason that this machine cannot run it, or None."""
    if os.geteuid() != 0:
        return "slurmd needs root"
    for program in ("munged", "slurmctld", "slurmd", "sbatch", "srun"):
        if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            return f"{program} is not installed"
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class OneNodeSlurm:
    def __init__(self, tasks=8):
        self.tasks = tasks
        self.children = []

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="paceline-slurm-")
        os.chmod(self.dir, 0o755)
        host = socket.gethostname().split(".")[0]
        sub = {name: os.path.join(self.dir, name) for name in ("munge", "state", "spool", "log")}
        for path in sub.values():
            os.mkdir(path, 0o700 if path == sub["munge"] else 0o755)
        key = os.path.join(sub["munge"], "key")
        with open(key, "wb") as f:
            f.write(os.urandom(1024))
        os.chmod(key, 0o400)
        # munged refuses folders that others may write above its socket: its own lives under /run.
        self.sockets = tempfile.mkdtemp(prefix="paceline-munge-", dir="/run")
        os.chmod(self.sockets, 0o755)
        sock = os.path.join(self.sockets, "munge.socket")
        self.conf = os.path.join(self.dir, "slurm.conf")
        with open(os.path.join(self.dir, "cgroup.conf"), "w") as f:
            f.write("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        with open(self.conf, "w") as f:
            f.write(f"""ClusterName=paceline
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={sock}
CredType=cred/munge
StateSaveLocation={sub['state']}
SlurmdSpoolDir={sub['spool']}
SlurmctldPidFile={self.dir}/slurmctld.pid
SlurmdPidFile={self.dir}/slurmd.pid
SlurmctldLogFile={sub['log']}/slurmctld.log
SlurmdLogFile={sub['log']}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=pmix
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000,requeue_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={self.tasks} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
""")
        self.env = dict(os.environ, SLURM_CONF=self.conf, PATH="/usr/sbin:/usr/bin:/sbin:/bin")
        try:
            self.start(["munged", "-F", "--force", "--key-file", key, "--socket", sock,
                        "--pid-file", f"{self.sockets}/pid", "--log-file", f"{sub['log']}/munged.log",
                        "--seed-file", f"{sub['munge']}/seed"])
            self.wait(lambda: os.path.exists(sock), 10, "munged's socket")
            self.start(["slurmctld", "-D", "-c", "-f", self.conf])
            self.wait(lambda: self.run(["scontrol", "ping"], check=False).returncode == 0, 20, "slurmctld")
            # -b would want a reboot; -c starts with clean state; the node reports as many CPUs as the configuration says.
            self.start(["slurmd", "-D", "-c", "-f", self.conf, "-N", host])
            self.wait(lambda: "idle" in self.run(["sinfo", "-h", "-o", "%T"], check=False).stdout, 20, "the node")
        except Exception:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self, argv):
        log = open(os.path.join(self.dir, os.path.basename(argv[0]) + ".out"), "ab")
        self.children.append(subprocess.Popen(argv, env=self.env, stdout=log, stderr=log, start_new_session=True))

    def run(self, argv, check=True):
        return subprocess.run(argv, env=self.env, text=True, capture_output=True, timeout=60, check=check)

    def wait(self, ready, seconds, what):
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come up in {seconds} s; logs:\n{self.logs()}")
            time.sleep(0.2)

    def logs(self):
        text = ""
        for folder, _, names in os.walk(self.dir):
            for name in names:
                if name.endswith((".log", ".out")):
                    with open(os.path.join(folder, name), errors="replace") as f:
                        text += f"--- {name}\n" + f.read()[-3000:]
        return text

    def __exit__(self, *_):
        for child in reversed(self.children):
            try:
                os.killpg(child.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
