"""Nothing that the lab starts reaches past loopback, whatever credentials, profiles and endpoints the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = Path(__file__).with_name("count_packets.sh")
PROGRAMS = Path(sys.executable).parent
ELSEWHERE = "http://198.51.100.9:80"  # TEST-NET-2, reserved for documentation

CONFIG = f"""
[default]
region = eu-west-1
aws_access_key_id = AKIAHOSTILE
aws_secret_access_key = hostile
endpoint_url = {ELSEWHERE}
[profile hostile]
region = eu-west-1
role_arn = arn:aws:iam::210987654321:role/hostile
source_profile = default
"""


@pytest.fixture
def hostile(tmp_path):
    """The environment of a machine set up for a real AWS account, a proxy and another cluster."""
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    for name in ("config", "credentials"):
        (tmp_path / "home" / ".aws" / name).write_text(CONFIG)
    proxies = {
        name: ELSEWHERE for proxy in ("http_proxy", "https_proxy", "all_proxy") for name in (proxy, proxy.upper())
    }
    return {
        **os.environ,
        **proxies,
        "HOME": str(tmp_path / "home"),
        "LABKIT_HOME": str(tmp_path / ".lab"),
        "AWS_PROFILE": "hostile",
        "AWS_ACCESS_KEY_ID": "AKIAHOSTILE",
        "AWS_SECRET_ACCESS_KEY": "hostile",
        "AWS_ENDPOINT_URL": ELSEWHERE,
        "AWS_ENDPOINT_URL_STS": ELSEWHERE,
        "AWS_ENDPOINT_URL_S3": ELSEWHERE,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": ELSEWHERE,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": ELSEWHERE,
        "AWS_ROLE_ARN": "arn:aws:iam::210987654321:role/hostile",
        "KUBECONFIG": str(tmp_path / "nowhere"),
        "NO_PROXY": "",
    }


def packets_of(command: str, environment: dict[str, str], folder: Path) -> tuple[int, str]:
    """Run a shell command; return how many packets left loopback, and the command's output."""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", COUNT, "bash", "-euc", command],
        env={**environment, "PATH": f"{PROGRAMS}{os.pathsep}{environment['PATH']}"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed, _, packets = done.stdout.rpartition("packets sent: ")
    return int(packets), printed


@pytest.mark.network
def test_the_packet_counter_counts_a_call(hostile, tmp_path):
    call = "timeout 60 aws sts get-caller-identity --cli-connect-timeout 1 || true"
    assert packets_of(call, hostile, tmp_path)[0] > 0


@pytest.mark.network
def test_a_run_and_the_aws_cli_send_no_packet_past_loopback(hostile, tmp_path):
    run = """
        trap 'labkit down' EXIT
        labkit run
        eval "$(labkit env)"
        for call in "s3 ls" "sqs list-queues" "rds describe-db-instances" "sts get-caller-identity"; do aws $call; done
    """
    packets, printed = packets_of(run, hostile, tmp_path)
    assert "assumed-role/my-role/" in printed
    assert "arn:aws:iam::123456789012:user/administrator" in printed
    assert packets == 0


@pytest.mark.network
def test_a_pod_without_irsa_sends_no_packet_past_loopback(hostile, tmp_path):
    run = """
        trap 'labkit down' EXIT
        labkit up --imds open
        python - <<'PY'
import labkit
from labkit.execution import execute
from kubernetes.client import CoreV1Api
lab = labkit.Lab.open()
pod = {"metadata": {"name": "plain"}, "spec": {"containers": [
    {"name": "aws", "image": "amazon/aws-cli", "command": ["sleep", "infinity"]}]}}
CoreV1Api(lab.kubernetes).create_namespaced_pod("default", pod)
from labkit.steps.pod import wait_until_running
wait_until_running(lab, "plain")
print(execute(lab.kubernetes, "plain", "default", ["aws", "sts", "get-caller-identity"]).output)
print(execute(lab.kubernetes, "plain", "default", ["env"]).output)
print(execute(lab.kubernetes, "plain", "default", ["aws", "sqs", "list-queues", "--region", "us-east-1"]).error)
# As a program does that knows nothing of the lab: the real STS, and the metadata service of a real cloud.
ask = "import sys, urllib.request as u; sys.stderr = sys.stdout; u.urlopen(sys.argv[1], timeout=9)"
for url in "https://sts.us-east-1.amazonaws.com/", "http://169.254.169.254/latest/meta-data/":
    print(execute(lab.kubernetes, "plain", "default", ["python", "-c", ask, url]))
PY
    """
    packets, printed = packets_of(run, hostile, tmp_path)
    assert "assumed-role/blue-node-role/i-0" in printed
    assert "no identity-based policy allows the sqs:listqueues action" in printed
    assert "HOSTILE" not in printed
    assert "198.51.100.9" not in printed
    assert printed.count("URLError: <urlopen error [Errno 111] Connection refused>") == 2
    assert packets == 0
