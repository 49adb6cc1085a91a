"""The closed environment: variables and files with which programs reach only the lab's AWS and Kubernetes."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from labkit.simulator import aws_cli
from labkit.simulator.folder import Folder

# By default, boto3 presigns URLs in us-east-1 with a signature that S3 rejects for buckets created since June 2020.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
S3 = "s3 =\n  signature_version = s3v4\n"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy")


def closed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` without variables such as `AWS_PROFILE`, `KUBECONFIG` and `HTTPS_PROXY`.

    These variables could lead a program out of the lab: to the real AWS, to another cluster or to a proxy.
    """
    return {name: value for name, value in environment.items() if not is_open(name)}


def is_open(name: str) -> bool:
    """Whether the variable ``name`` could lead a program to another AWS, to another cluster or to a proxy.

    https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
    """
    return name.startswith(("AWS_", "BOTO_")) or name == "KUBECONFIG" or name.lower() in PROXIES


def variables(folder: Folder, endpoint_url: str, region: str) -> dict[str, str]:
    """Return variables for a terminal or a notebook. They lead ``aws``, ``kubectl`` and every SDK to the lab."""
    loopback = "127.0.0.1,localhost"
    return {
        "LABKIT_HOME": str(folder.path),
        "AWS_CONFIG_FILE": str(folder.aws_config),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder.aws_credentials),
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "KUBECONFIG": str(folder.kubeconfig),
        # kubectl caches an API server's kinds by its address, and another lab may have had this port before.
        "KUBECACHEDIR": str(folder.path / "kubectl-cache"),
        "NO_PROXY": loopback,
        "no_proxy": loopback,
    }


def write_aws_files(folder: Folder, region: str, keys: Mapping[str, tuple[str, str]]) -> None:
    """Write AWS's config and credentials files. In the lab, programs use them instead of the learner's ``~/.aws``.

    ``keys`` has, for each profile, the id and the secret of its access key.
    """
    settings = f"region = {region}\noutput = json\n{S3}"
    config = "".join(f"[{'' if name == 'default' else 'profile '}{name}]\n{settings}" for name in keys)
    folder.write_private(folder.aws_config, f"{config}{aws_cli.CONFIG}".encode())
    credentials = "".join(
        f"[{name}]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"
        for name, (key_id, secret) in keys.items()
    )
    folder.write_private(folder.aws_credentials, credentials.encode())


@contextmanager
def restored() -> Iterator[None]:
    """At the end of this block, give this process the environment variables that it had at the beginning."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def with_programs(path: str, programs: Path) -> str:
    """Return ``path`` (the variable PATH) with the folder ``programs`` first. Remove other entries for that folder.

    ``programs`` has the ``aws`` and ``labkit`` of this Python environment.
    """
    others = [folder for folder in path.split(os.pathsep) if folder and folder != str(programs)]
    return os.pathsep.join([str(programs), *others])
