"""Hosts made of namespaces: a network and a UTS namespace each, veth pairs on one bridge, so that Open MPI sees hosts with names of
their own and talks TCP between them. Root only. Only the addresses of these namespaces are used. A context manager."""
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

NET = "10.213.77"  # the namespaces' own network; it exists nowhere else


def sh(*argv, check=True):
    return subprocess.run(argv, text=True, capture_output=True, check=check, timeout=30)


def why_not():
    """A reason that this machine cannot make them, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nsenter", "unshare", "mpirun"):
        if not shutil.which(program):
            return f"{program} is not installed"
    name = f"plprobe{os.getpid()}"
    if sh("ip", "netns", "add", name, check=False).returncode != 0:
        return "network namespaces are not allowed here"
    try:
        if sh("ip", "link", "add", name[:13] + "b", "type", "bridge", check=False).returncode != 0:
            return "no bridges here"
        sh("ip", "link", "del", name[:13] + "b", check=False)
    finally:
        sh("ip", "netns", "del", name, check=False)
    return None


def take_down(bridge, names):
    for name in names:
        for pid in pids_of(name):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        sh("ip", "netns", "del", name, check=False)
    sh("ip", "link", "del", bridge, check=False)
    with open("/etc/hosts", "r+") as f:
        lines = [line for line in f if not any(name in line.split() for name in names)]
        f.seek(0)
        f.writelines(lines)
        f.truncate()


def pids_of(name):
    return [int(p) for p in sh("ip", "netns", "pids", name, check=False).stdout.split()]


def runs(pid):
    """Whether that is a Python still; another process may have got its number."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return b"python" in f.read()
    except OSError:
        return False


def clear_leftovers():
    """Takes down what killed runs left: their bridges would answer to the same addresses. Exits when a living one holds them."""
    with open("/etc/hosts") as f:
        seen = sh("ip", "netns", "list").stdout + sh("ip", "-o", "link", "show", "type", "bridge").stdout + f.read()
    left = {}
    for tag, pid, part in re.findall(r"\b(pl(\d+)[a-z])(br|h\d+)\b", seen):
        if int(pid) != os.getpid():
            left.setdefault((tag, int(pid)), set()).add(tag + part)
    for (tag, pid), names in left.items():
        if runs(pid):
            sys.exit(f"process {pid} holds the network {NET}.0/24 of this test: run it again when that has ended")
        take_down(tag + "br", names - {tag + "br"})


class Hosts:
    """n hosts named plh1…; the caller's own namespace is on the bridge too, as the place where mpirun runs."""

    made = 0  # a namespace's links die a little after it: names are used once

    def __init__(self, n=3):
        Hosts.made += 1
        self.tag = f"pl{os.getpid()}{chr(96 + Hosts.made)}"
        self.names = [f"{self.tag}h{i + 1}" for i in range(n)]
        self.bridge = f"{self.tag}br"

    def __enter__(self):
        clear_leftovers()
        self.dir = tempfile.mkdtemp(prefix="paceline-hosts-")
        os.chmod(self.dir, 0o755)
        try:
            sh("ip", "link", "add", self.bridge, "type", "bridge")
            sh("ip", "addr", "add", f"{NET}.1/24", "dev", self.bridge)
            sh("ip", "link", "set", self.bridge, "up")
            for i, name in enumerate(self.names):
                veth = f"{self.tag}v{i + 1}"
                sh("ip", "netns", "add", name)
                sh("ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", name)
                sh("ip", "link", "set", veth, "master", self.bridge, "up")
                for argv in (("addr", "add", f"{NET}.{i + 2}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                             ("link", "set", "lo", "up")):
                    sh("ip", "-n", name, *argv)
            with open("/etc/hosts", "a") as f:
                for i, name in enumerate(self.names):
                    f.write(f"{NET}.{i + 2} {name} # paceline test\n")
        except Exception:
            self.__exit__(None, None, None)
            raise
        # mpirun's remote shell: enters host $1 and runs the rest there. nsenter, since `ip netns exec` would hide /sys/fs/cgroup.
        self.agent = os.path.join(self.dir, "agent")
        with open(self.agent, "w") as f:
            f.write('#!/bin/sh\nhost=$1\nshift\n'
                    'exec nsenter --net=/run/netns/"$host" unshare --uts sh -c "hostname $host; exec sh -c \'$*\'"\n')
        os.chmod(self.agent, os.stat(self.agent).st_mode | stat.S_IXUSR)
        return self

    def mpirun(self, slots):
        """The launcher's words for `slots` ranks on each host in turn; rank 0 is on the first."""
        hostfile = os.path.join(self.dir, "hostfile")
        with open(hostfile, "w") as f:
            f.writelines(f"{name} slots={n}\n" for name, n in zip(self.names, slots))
        return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "plm", "rsh", "--mca", "plm_rsh_agent", self.agent,
                "--mca", "btl_tcp_if_include", f"{NET}.0/24", "--mca", "oob_tcp_if_include", f"{NET}.0/24",
                "--mca", "btl", "tcp,self,vader", "--mca", "pml", "ob1", "--hostfile", hostfile, "-n", str(sum(slots))]

    def vanish(self, name):
        """The host's link goes down: no packet, no reset, nobody is told."""
        sh("ip", "link", "set", f"{self.tag}v{self.names.index(name) + 1}", "down")

    def __exit__(self, *_):
        take_down(self.bridge, self.names)
        shutil.rmtree(self.dir, ignore_errors=True)
