"""An AWS session for the lab's endpoint. The machine's own AWS settings have no effect on this session."""

import os
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.loaders import create_loader

from labkit.errors import LabError
from labkit.simulator.aws_cli import S3_CONTROL, keep_host

# botocore repeats some refused calls, and the learner waits meanwhile. On loopback, two attempts are enough.
QUICK = Config(
    proxies={},
    retries={"mode": "standard", "total_max_attempts": 2},
    connect_timeout=5,
    read_timeout=120,
    # On loopback, a bucket's name can't be a host name.
    s3={"addressing_style": "path"},
)


# The services' descriptions. All sessions share one loader, which parses each description once: this saves 0.1 s
# for a session with four clients.
_MODELS = create_loader()


class BoundSession(boto3.Session):  # type: ignore[misc]  # boto3 has no types
    """A `boto3.Session`. All its clients and resources talk to the lab's endpoint.

    The machine's own AWS settings and proxies have no effect.
    https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
    """

    def __init__(
        self,
        *,
        endpoint_url: str,
        access_key_id: str,
        secret_access_key: str,
        region: str,
        session_token: str | None = None,
    ):
        self.endpoint_url = endpoint_url
        self._clients: dict[tuple[str, str | None], Any] = {}
        super().__init__(
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            aws_session_token=session_token,
            region_name=region,
            botocore_session=_without_environment(),
        )

    def client(self, service_name: str, *args: Any, **kwargs: Any) -> Any:
        """Return a client of the service. The arguments are those of `boto3.Session.client`.

        Raises `LabError` if the argument `endpoint_url` isn't the lab's endpoint.

        Calls with the same service and region, and no other argument, return the same client. Threads may share a
        client.

        https://docs.aws.amazon.com/boto3/latest/guide/clients.html#multithreading-or-multiprocessing-with-clients
        """
        if args or kwargs.keys() - {"region_name"}:
            return self._new_client(service_name, *args, **kwargs)
        key = service_name, kwargs.get("region_name")
        if key not in self._clients:
            self._clients[key] = self._new_client(service_name, **kwargs)
        return self._clients[key]

    def _new_client(self, service_name: str, *args: Any, **kwargs: Any) -> Any:
        wanted = kwargs.get("endpoint_url") or self.endpoint_url
        if urlsplit(wanted).netloc != urlsplit(self.endpoint_url).netloc:
            raise LabError(
                f"lab.aws talks only to the lab, not to {wanted}.",
                where=f"lab.aws.client({service_name!r}, endpoint_url=…)",
                next="leave endpoint_url out",
            )
        config = kwargs.get("config")
        kwargs["endpoint_url"] = self.endpoint_url
        # Without s3v4, boto3 presigns for S3 in us-east-1 with a signature that AWS no longer accepts.
        own = QUICK.merge(Config(signature_version="s3v4")) if service_name == "s3" else QUICK
        kwargs["config"] = (own.merge(config) if config else own).merge(Config(proxies={}))
        client = super().client(service_name, *args, **kwargs)
        if service_name == "s3control":
            client.meta.events.register_first(S3_CONTROL, keep_host)
        return client


def load_client(service_name: str) -> None:
    """Load the code and data that the first client of this service needs. This needs no session."""
    BoundSession(
        endpoint_url="http://127.0.0.1:9",
        access_key_id="-",
        secret_access_key="-",  # noqa: S106  # it signs nothing
        region="us-east-1",
    ).client(service_name)


def _without_environment() -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", _MODELS)
    # Each setting keeps its default: botocore reads it neither from a variable nor from a config file.
    for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        no_file = name in ("config_file", "credentials_file")
        session.session_var_map[name] = (None, None, os.devnull if no_file else default, convert)
    store = session.get_component("config_store")
    for section in ("s3", "proxies_config"):
        store.set_config_variable(section, {})
    return session
