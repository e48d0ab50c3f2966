"""Run ``ray up`` and ``ray down`` for a cluster file on a simulated AWS, in an own network namespace.

``python simulated_aws.py FILE FOLDER``: starts moto's server on loopback, makes what the README tells a
user to make before, runs Ray's launcher, launches a worker as the head's autoscaler would, prints one
JSON object: what EC2 was asked for, what was said over SSH, what is left after ``ray down``. The
namespace matters: the simulation hands out addresses that look real, and the launcher would knock on
them. ``ssh`` and ``rsync`` are stand-ins that write down what they are told. Exit code 77: no namespace
to be had, with the reason.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

REGION = "us-west-2"
UP_LIMIT_S, DOWN_LIMIT_S = 120, 80
NO_NAMESPACE = 77
TOKEN = "0123456789abcdef" * 4
ROOT = Path(__file__).parents[2]

STAND_IN = """#!{python} -S
import json, os, shutil, sys
name, line = os.path.basename(sys.argv[0]), " ".join(sys.argv)
with open({log!r}, "a") as log:
    log.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
running = {folder!r} + "/running"
if name == "rsync" and "/ray_bootstrap_" in sys.argv[-1]:  # the file that the head finds in its home
    shutil.copy(sys.argv[-2], {folder!r} + "/head/" + os.path.basename(sys.argv[-1]))
if "docker run" in line:
    open(running, "w").close()
if "docker stop" in line and os.path.exists(running):
    os.remove(running)
if ".State.Running" in line:
    print("true" if os.path.exists(running) else "false")
elif "command -v docker" in line:
    print("/usr/bin/docker")
elif "printenv HOME" in line:
    print("/home/ray")
elif ".Config.Env" in line:
    print("[]")
"""


def own_network() -> None:
    """Move this process into an empty network namespace, as root or in a user namespace."""
    new_user, new_net = 0x10000000, 0x40000000
    libc, uid, gid = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    try:
        if libc.unshare(new_net):
            if libc.unshare(new_user | new_net):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        loopback_up()
    except (OSError, AttributeError) as error:  # AttributeError: a system without unshare
        print(f"no network namespace here: {error}")
        sys.exit(NO_NAMESPACE)


def loopback_up() -> None:
    """Do what `ip link set lo up` does, without the command `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        get, put, up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        request = fcntl.ioctl(sock, get, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1]
        fcntl.ioctl(sock, put, struct.pack("16sH14x", b"lo", flags | up))


def assert_alone() -> None:
    """Check that only loopback exists, so that nothing outside this machine is contacted."""
    names = [name for _, name in socket.if_nameindex() if name not in ("lo", "tunl0", "sit0", "ip6tnl0")]
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if names or routes:
        sys.exit(f"not in a network namespace of its own: {names} {routes}")


def stand_ins(folder: Path) -> tuple[Path, Path]:
    """A folder with ``ssh`` and ``rsync``, and the file that they write to."""
    programs, log = folder / "bin", folder / "said"
    programs.mkdir()
    (folder / "head").mkdir()
    for name in ("ssh", "rsync"):
        path = programs / name
        path.write_text(STAND_IN.format(python=sys.executable, log=str(log), folder=str(folder)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return programs, log


def launcher(arguments: list[str], environment: dict[str, str], limit_s: float) -> dict[str, Any]:
    """Run a Ray command in its own process group, and end it after a timeout."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), *arguments],
        cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output = process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0] + f"\n(stopped after {limit_s} s)"
    return {"code": process.returncode, "output": output[-8000:]}


def clusters(ec2: Any) -> list[dict[str, Any]]:
    """Machines of all states, as EC2 describes them."""
    found = ec2.describe_instances()["Reservations"]
    return [machine for reservation in found for machine in reservation["Instances"]]


def launch_worker(config: dict[str, Any], node_type: str) -> list[str]:
    """Launch one worker from the file that was sent to the head, as its autoscaler would."""
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, IConfigReader
    from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter

    class Reader(IConfigReader):
        def get_cached_autoscaling_config(self) -> AutoscalingConfig:
            return AutoscalingConfig(config, skip_content_hash=True)

        def refresh_cached_autoscaling_config(self) -> None:
            """Do nothing: the file does not change."""

    provider = _get_node_provider(config["provider"], config["cluster_name"])
    adapter = NodeProviderAdapter(provider, Reader())
    adapter._launch_nodes_by_type(node_type, 1, "request-1")
    if errors := adapter.poll_errors():
        raise RuntimeError(f"{errors[0]}: {errors[0].__cause__}")
    return [type(provider).__name__, *provider.non_terminated_nodes({"ray-user-node-type": node_type})]


def main() -> None:
    file, folder = Path(sys.argv[1]), Path(sys.argv[2])
    own_network()
    assert_alone()
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    home = folder / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(TOKEN)
    programs, log = stand_ins(folder)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    environment = keep | {
        "HOME": str(home),
        "TMPDIR": str(folder),
        "PATH": f"{programs}:{keep['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "BOTO_MAX_RETRIES": "2",
        "AUTOSCALER_NODE_SSH_INTERVAL_S": "1",
    }
    os.environ.update({k: v for k, v in environment.items() if k.startswith("AWS_")})
    import boto3

    ec2, iam = boto3.client("ec2"), boto3.client("iam")
    boto3.client("cloudformation").create_stack(
        StackName="mipoison-iam",
        TemplateBody=(ROOT / "clusters" / "aws-iam.yaml").read_text(),
        Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "bucket"}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    up = launcher(["up", str(file), "--yes"], environment, UP_LIMIT_S)
    found: dict[str, Any] = {"up": up}
    found["head"] = clusters(ec2)
    found["sent"] = json.loads((folder / "head" / "ray_bootstrap_config.yaml").read_text())
    os.environ["HOME"] = str(folder / "head")
    found["worker"] = launch_worker(found["sent"], "gpu")
    found["machines"] = clusters(ec2)
    volumes = ec2.describe_volumes()["Volumes"]
    found["encrypted"] = [v["Encrypted"] for v in volumes if v["Attachments"]]
    found["groups"] = ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["mipoison-ray"]}]
    )["SecurityGroups"]
    found["keys"] = [pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]]
    found["profiles"] = {
        p["InstanceProfileName"]: [r["RoleName"] for r in p["Roles"]]
        for p in iam.list_instance_profiles()["InstanceProfiles"]
    }
    found["said"] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found["key_files"] = [[p.name, oct(p.stat().st_mode & 0o777)] for p in (home / ".ssh").glob("*.pem")]
    found["down"] = launcher(["down", str(file), "--yes"], environment, DOWN_LIMIT_S)
    found["after"] = [machine["State"]["Name"] for machine in clusters(ec2)]
    print(json.dumps(found, default=str))
    server.stop()


if __name__ == "__main__":
    main()
