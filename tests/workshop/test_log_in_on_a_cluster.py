"""The values' log-in in a real hub: leaders see the board and no lab, and nobody takes a leader's name."""

import json
import os
import subprocess
import sys

import httpx
import pytest
import yaml
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from labkit.workshop import helm_values, read
from labkit.workshop.board.access import SCOPE

# As the chart's own configuration does: hub.config, hub.services, hub.loadRoles, and then hub.extraConfig. No proxy.
CONFIG = """
import json
from jupyterhub.proxy import Proxy
from traitlets import Bool

class NoProxy(Proxy):
    should_start = Bool(False)
    async def add_route(self, *given): pass
    async def delete_route(self, *given): pass
    async def get_all_routes(self): return {}

c = get_config()
hub = json.loads(VALUES)
for name, settings in hub["config"].items():
    c[name].update(settings)
c.JupyterHub.services = [{"name": name, "api_token": "b" * 32} | each for name, each in hub["services"].items()]
c.JupyterHub.load_roles = [{"name": name} | role for name, role in hub["loadRoles"].items()]
for code in hub["extraConfig"].values():
    exec(code)
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.hub_bind_url = "http://127.0.15.253:8081"
"""


@pytest.fixture(scope="module", params=["names: [ana, ben]", "phrase: schöne Grüße"])
def hub(request, tmp_path_factory):
    """A running hub, as the `hub` of the values."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "workshop.yaml").write_text(f"{request.param}\nleaders: [lea]\n")
    values = yaml.safe_load(helm_values(read(folder), "lab:1.0"))["hub"]
    (folder / "config.py").write_text(f"VALUES = {json.dumps(values)!r}\n{CONFIG}")
    command = [os.environ.get("LABKIT_HUB_PYTHON", sys.executable), "-m", "jupyterhub", "--config", "config.py"]
    with subprocess.Popen(command, cwd=folder) as running:
        try:
            log_in("ana", "not the password")
            yield values
        finally:
            running.terminate()


@retry(stop=stop_after_delay(60), wait=wait_fixed(0.1), retry=retry_if_exception_type(httpx.TransportError))
def log_in(name: str, password: str) -> dict:
    """Return the user as the hub knows who logged in; empty if it refused."""
    with httpx.Client(base_url="http://127.0.15.253:8081/hub/", trust_env=False, timeout=30) as browser:
        browser.get("login")
        xsrf = {"_xsrf": browser.cookies["_xsrf"]}
        answer = browser.post("login", params=xsrf, data={"username": name, "password": password} | xsrf)
        if answer.status_code != 302:
            assert answer.status_code == 403
            return {}
        return browser.get("api/user", params={"_xsrf": browser.cookies.get("_xsrf", path="/hub/")}).json()


def test_a_leader_has_the_board_and_no_participants_lab(hub):
    passwords = hub["config"]["ClassPasswords"]
    leader, ana = log_in("lea", passwords["leaders_password"]), log_in("ana", passwords["password"])
    assert (leader["name"], leader["admin"], ana["name"], ana["admin"]) == ("lea", False, "ana", False)
    assert SCOPE in leader["scopes"] and SCOPE not in ana["scopes"]
    assert [scope for scope in leader["scopes"] if scope.startswith("access:servers")] == ["access:servers!user=lea"]


@pytest.mark.parametrize("name", ["lea", "Lea", "LEA"])
def test_nobody_takes_a_leaders_name(hub, name):
    assert log_in(name, hub["config"]["ClassPasswords"]["password"]) == {}


def test_the_leaders_password_opens_no_participants_lab(hub):
    assert log_in("ana", hub["config"]["ClassPasswords"]["leaders_password"]) == {}
