"""A class with the real hub: two participants work at once, and go on while parts of the workshop are killed."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import nbformat
import psutil
import pytest
import websockets
from playwright.sync_api import expect, sync_playwright

from labkit.course import NOTEBOOKS
from labkit.errors import LabError
from labkit.workshop import keeper, networks, running, seats
from labkit.workshop.participant import Participant
from labkit.workshop.settings import number
from tests import accessibility
from tests.workshop.conftest import BROWSERS, CHOSEN, HOSTILE_NAMES, command

pytestmark = pytest.mark.workshop

OPENS = "01-oidc-provider.ipynb"
CLASS = [*sorted(file.name for file in NOTEBOOKS.glob("*.ipynb") if number(file) in {"00", *CHOSEN}), "contents.ipynb"]
HOSTILE = (Path(__file__).parent / "hostile.py").read_text()
# None of these may succeed in a sandbox.
COMMANDS = [
    "ip link set eth0 down",
    "ip address add 10.9.9.9/32 dev eth0",
    "nsenter --net=/proc/1/ns/net --user=/proc/1/ns/user true",
    "su -c id",
    "mount -t tmpfs none /mnt",
    "unshare --user --map-root-user --mount umount /proc",
    "unshare --user --map-root-user ip link set eth0 down",
    "ls /sys/fs/cgroup/",
    "touch /usr/here || touch /etc/here || touch /here",
    "cat /etc/shadow",
    "ls /dev/loop0 || ls /dev/mem || ls /dev/kmsg",
    "dmesg",
]
# Each in a subprocess, so that the notebook's own kernel goes on.
HOGS = """
import os, signal, subprocess, sys
hog = subprocess.run([sys.executable, "-c", "x = b'x' * (2 << 30)"])
crowd = []
try:
    while True:
        crowd.append(subprocess.Popen(["sleep", "60"]))
except OSError:
    pass
for each in crowd:
    each.kill()
    each.wait()
full, home = 0, os.path.expanduser("~/full")
try:
    with open(home, "wb", buffering=0) as file:
        while True:
            full += file.write(bytes(2**20))
except OSError as error:
    why = error.strerror
os.unlink(home)
print(hog.returncode == -signal.SIGKILL, 100 < len(crowd) < 400, 0 < full < 128 * 2**20, why)
"""
CODE = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell"  # of the notebook in front
# The highest number beside a cell, once no cell waits.
LAST_COUNT = f"""(() => {{
const prompts = [...document.querySelectorAll('{CODE} .jp-InputPrompt')].map(prompt => prompt.textContent);
return prompts.some(text => text.includes('*')) ? 0 : Math.max(0, ...prompts.map(text => +text.replace(/\\D/g, '')));
}})()"""
WITHIN = 120_000  # milliseconds
WHO = """
import os, labkit
mine = {"name": os.environ["USER"], "uid": os.getuid(), "issuer": lab.issuer}
print(mine["name"], mine["uid"])
"""


async def ready(participant, name):
    person = participant(name)
    await person.log_in()
    await person.started()
    return person


async def all_ready(participant, names):
    return await asyncio.gather(*(ready(participant, name) for name in names))


def own(workshop, part):
    """The workshop's process that runs this part."""
    return next(process for process in running.own_processes(workshop) if part in " ".join(process.cmdline()))


def own_started_again(workshop, part):
    """Kill a part with -9, and wait until its successor answers."""
    killed = own(workshop, part)
    killed.send_signal(signal.SIGKILL)
    psutil.wait_procs([killed], 10)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if running.status(workshop).answers and own(workshop, part).pid != killed.pid:
                return
        except StopIteration:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{part} was not started again")


def test_two_at_once_open_their_own_lab_and_keep_it_while_hub_proxy_and_keeper_are_killed(
    workshop, folder, participant
):
    async def work(name):
        person = await ready(participant, name)
        async with person.kernel(OPENS) as kernel:
            for cell in (await person.cells(OPENS))[:2]:
                await kernel.run(cell)
            return person, await kernel.run(WHO)

    async def go_on(person):
        await person.log_in()
        await person.started()
        async with person.kernel(OPENS) as kernel:
            return await kernel.run("print(mine['name'], mine['uid']); lab.check('oidc_provider')")

    async def scenario():
        (ana, first), (ben, second) = await asyncio.gather(work("ana"), work("ben"))
        places = seats.taken(workshop)
        assert first == f"ana {places['ana'].uid}\n" and second == f"ben {places['ben'].uid}\n"
        assert await ana.notebooks() == CLASS
        servers = {process: psutil.Process(process).create_time() for process in serving(workshop)}
        assert not any("sqlalchemy" in Path(f"/proc/{process}/maps").read_text() for process in servers)
        for part in ("jupyterhub", "configurable-http-proxy"):
            await asyncio.to_thread(own_started_again, workshop, part)
        own(workshop, "labkit.workshop.keeper").kill()
        orphans = running.own_processes(workshop)
        up = await asyncio.to_thread(command, "up", folder)
        assert up.returncode == 0, up.stderr
        assert orphans and not any(orphan.is_running() for orphan in orphans)
        for person, before in ((ana, first), (ben, second)):
            assert (await go_on(person)).startswith(before)
        assert all(psutil.Process(process).create_time() == since for process, since in servers.items())

    asyncio.run(scenario())
    assert running.status(workshop).at_work == ["ana", "ben"]


@pytest.mark.browser
def test_browsers_go_from_01_to_05_among_hostile_shells_while_the_hub_is_killed(workshop, participant, laptop):
    asyncio.run(all_ready(participant, HOSTILE_NAMES))
    with sync_playwright() as playwright, ThreadPoolExecutor(len(HOSTILE_NAMES)) as threads:
        chromium = playwright.chromium.launch(**laptop)
        pages = {name: chromium.new_context(ignore_https_errors=True).new_page() for name in BROWSERS}
        for name, page in pages.items():
            page.set_default_timeout(WITHIN)
            page.goto(workshop.url)
            page.get_by_label("Username:").fill(name)
            page.keyboard.press("Enter")
            # A screen reader reads the sentence with the field that has the keyboard.
            described = expect(page.get_by_label("Username:"))
            described.to_have_accessible_description("This isn't the word on the card of this name.")
            described.to_be_focused()
            page.get_by_label("Username:").fill(name)
            page.keyboard.press("Tab")
            page.keyboard.type(participant(name).word)
        for page in pages.values():
            page.keyboard.press("Enter")
        for page in pages.values():
            # Whose server runs since another test is there at once.
            page.wait_for_url(re.compile("/hub/spawn-pending/|/user/.+/lab"), wait_until="commit")
        # The hub forgets the starts. The pages notice, and ask for them again.
        own_started_again(workshop, "jupyterhub")
        for name, page in pages.items():
            page.wait_for_url(f"**/user/{name}/lab/**")
        attacks = []
        for notebook in CLASS[1:-1]:
            attacks += [threads.submit(asyncio.run, attack(workshop, participant, name)) for name in HOSTILE_NAMES]
            for page in pages.values():
                page.locator(f".jp-DirListing-item[title*='{notebook}']").dblclick()
            for page in pages.values():
                until_open(page, notebook)
                page.get_by_role("menuitem", name="Run", exact=True).click()
                # Another test may have used this kernel.
                page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
                page.locator(".jp-Dialog button.jp-mod-accept").click()
            if notebook == OPENS:
                own_started_again(workshop, "jupyterhub")
            for page in pages.values():
                # After an error, JupyterLab would run no further cell.
                until_run(page, cells(notebook))
            if notebook == OPENS:
                for page in pages.values():
                    page.reload(wait_until="commit")
                for page in pages.values():
                    until_open(page, notebook)
                    page.locator(f"{CODE} .jp-InputArea-editor").first.click()
                    page.keyboard.press("Shift+Enter")
                for page in pages.values():
                    # The kernel counts on, so it is the same one.
                    until_run(page, cells(notebook) + 1)
        assert [each.result() for each in attacks] == [[]] * len(attacks)
        chromium.close()


@pytest.mark.browser
def test_pages_of_the_hub_show_the_title_and_have_no_serious_fault(workshop, participant, laptop):
    ana = participant("ana")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**laptop)
        page = chromium.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(WITHIN)

        def seen(path, says):
            page.goto(f"{workshop.url}{path}")
            expect(page.get_by_text(says).first).to_be_visible()
            for theme, width in (("light", 1280), ("dark", 400)):
                page.emulate_media(color_scheme=theme)
                page.set_viewport_size({"width": width, "height": 800})
                if folder := os.environ.get("LABKIT_SCREENSHOTS"):
                    page.screenshot(path=f"{folder}/hub-{path.replace('/', '-')}-{width}.png")
                assert accessibility.faults(page, "body") == [], (path, theme)
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)

        seen("hub/login", "Roles & <Service> Accounts")
        page.get_by_label("Username:").fill("ana")
        page.get_by_label("Password:").fill(ana.word)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/hub/spawn-pending/|/user/.+/lab"), wait_until="commit")
        seen("hub/home", "My Server")
        seen("hub/nothing", "404")
        chromium.close()


def until_open(page, notebook):
    """Wait until the notebook is in front of the contents page, and its kernel is ready."""
    expect(page.get_by_role("tab", name=notebook, selected=True)).to_be_visible(timeout=WITHIN)
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=WITHIN)


def until_run(page, count):
    """Wait until the notebook's last cell has run as the kernel's cell of this number."""
    page.wait_for_function(f"{LAST_COUNT} >= {count}", timeout=WITHIN)
    assert page.evaluate(LAST_COUNT) == count


def cells(notebook):
    """How many code cells a notebook has that run: an empty one gets no number."""
    read = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    return sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in read)


def serving(workshop):
    """The processes of the participants' Jupyter servers."""
    return [
        pid
        for namespace in networks.namespaces(workshop)
        for pid in networks.processes(namespace)
        if psutil.Process(pid).cmdline()[2:4] == ["-m", "labkit.cli.jupyterlab"]
    ]


@pytest.mark.parametrize(("name", "word", "sentence"), [
    ("eve", "wrong", "This isn&#39;t the word on the card of this name."),
    ("nobody", "wrong", "This name isn&#39;t on the list. Ask the leader for a card."),
    ("../ana", "wrong", "This can&#39;t be a name."),
    ("", "wrong", "This can&#39;t be a name."),
    ("x" * 300, "wrong", "This can&#39;t be a name."),
])  # fmt: skip
def test_a_refused_log_in_is_one_sentence(workshop, name, word, sentence):
    person = Participant(workshop.url, name, word)
    with pytest.raises(LabError, match=sentence):
        asyncio.run(person.log_in())


def test_after_five_wrong_words_the_name_has_to_wait(workshop, participant):
    guess = Participant(workshop.url, "leader", "wrong")

    async def five():
        for _ in range(5):
            with pytest.raises(LabError, match="the word on the card"):
                await guess.log_in()
        with pytest.raises(LabError, match=r"5 wrong words for leader\. Wait a minute"):
            await participant("leader").log_in()

    asyncio.run(five())


def listening(workshop, name):
    """The ports on which something listens in a participant's namespace."""
    pids = networks.processes(seats.taken(workshop)[name].label)
    lines = Path(f"/proc/{pids[0]}/net/tcp").read_text().splitlines()[1:]
    return sorted({int(line.split()[1].partition(":")[2], 16) for line in lines if line.split()[3] == "0A"})


def facts(workshop, wildcard, victims):
    """What a hostile participant could learn of the machine and of others, and tries."""
    others = [seats.taken(workshop)[name] for name in victims]
    ports = {name: listening(workshop, name) for name in victims}
    proxy = workshop.host_and_port()[1]
    # Loopback is each participant's own. An address of one link alone begins with fe80.
    links = [each for name, each in psutil.net_if_addrs().items() if name != "lo"]
    own = [address.address for each in links for address in each if address.family in (socket.AF_INET, socket.AF_INET6)]
    own = [address.replace(address.partition("%")[2] or "%", "eth0") for address in own] + [workshop.hub_address]
    closed = [(other.address, port) for other in others for port in ports[other.name]]
    closed += [(address, port) for address in own for port in (wildcard, proxy, networks.PROXY_API_PORT)]
    pids = [pid for other in others for pid in networks.processes(other.label)]
    files = [path for other in others for path in (str(other.home), f"/home/{other.name}")]
    paths = [path for name in victims for path in (f"users/{name}", f"users/{name}/tokens")]
    return {
        "files": [str(workshop.state), *files, *(f"/proc/{pid}/environ" for pid in pids), "/root/.ssh"],
        "listeners": closed,
        "processes": [*pids, *psutil.pids()],
        "hub": keeper.hub_url(workshop),
        "calls": [
            *(("GET", path) for path in (*paths, "users", "proxy", "services", "groups")),
            *(("POST", f"users/{name}/{what}") for name in victims for what in ("server", "tokens")),
            *(("POST", f"shares/{name}/") for name in victims),
            *(("POST", path) for path in ("users/new", "shutdown")),
            *(("DELETE", f"users/{name}/server") for name in victims),
            *(("PATCH", f"users/{name}") for name in victims),
        ],
        "commands": COMMANDS,
    }


async def attack(workshop, participant, name, victims=BROWSERS):
    """Try everything in a hostile participant's kernel. Return what got through."""
    person = await ready(participant, name)
    async with person.kernel(OPENS) as kernel:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as wildcard:
            known = await asyncio.to_thread(facts, workshop, wildcard.getsockname()[1], victims)
            said = await kernel.run(f"FACTS = {json.dumps(known)!r}\n{HOSTILE}")
            wildcard.setblocking(False)
            with pytest.raises(BlockingIOError):
                wildcard.accept()
    return json.loads(said.splitlines()[-1])


def test_a_hostile_shell_gets_nothing(workshop, participant):
    async def scenario():
        ana = await ready(participant, "ana")
        async with ana.kernel(OPENS):
            assert len(listening(workshop, "ana")) > 8, "ana's lab and kernel have more listeners"
            assert await attack(workshop, participant, "eve", ["ana"]) == []
        eve = await ready(participant, "eve")
        async with eve.kernel(OPENS) as kernel:
            # The one address that a participant may reach.
            address = workshop.hub_address, networks.HUB_PORT
            await kernel.run(f"import socket; socket.create_connection({address}).close()")

    asyncio.run(scenario())


def test_another_s_cookie_and_another_origin_are_refused(workshop, participant):
    async def scenario():
        await ready(participant, "ana")
        eve = await ready(participant, "eve")
        for path in ("user/ana/lab", "user/ana/api/contents/learn", "hub/admin", "hub/spawn/ana"):
            assert (await eve.http.get(path)).status_code in (403, 404), path
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in eve.http.cookies.jar)
        async with eve.kernel(OPENS) as kernel:
            own = f"{workshop.url}user/eve/api/kernels/{kernel.id}/channels".replace("http", "ws", 1)
            for origin, address in (
                ("http://elsewhere.example", own),
                (workshop.url[:-1], own.replace("/eve/", "/ana/")),
            ):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    headers = {"Cookie": cookies}
                    await websockets.connect(
                        address, origin=origin, additional_headers=headers, ssl=eve.tls, proxy=None
                    )
                assert refused.value.response.status_code in (403, 404)

    asyncio.run(scenario())


def test_a_killed_server_starts_again_also_if_the_tab_is_closed_meanwhile(workshop, participant):
    async def until_the_hub_notices():
        token = {"Authorization": f"token {(workshop.state / 'hub-token').read_text()}"}
        async with httpx.AsyncClient(base_url=keeper.hub_url(workshop), headers=token, trust_env=False) as hub:
            while (await hub.get("/hub/api/users/ben")).json()["servers"]:
                await asyncio.sleep(0.2)

    async def scenario():
        ben = await ready(participant, "ben")
        async with ben.kernel(OPENS) as kernel:
            await kernel.run("from pathlib import Path; Path('kept.txt').write_text('kept')")
        (killed,) = set(networks.processes(seats.taken(workshop)["ben"].label)) & set(serving(workshop))
        server = psutil.Process(killed)
        server.kill()
        await asyncio.to_thread(psutil.wait_procs, [server], 10)
        assert "ben" not in running.status(workshop).at_work
        await until_the_hub_notices()
        again = participant("ben")
        await again.log_in()
        secret = again._secret("/hub/")
        async with again.http.stream("GET", "hub/api/users/ben/server/progress", params=secret) as tab:
            await anext(tab.aiter_lines())  # then the tab is closed
        await again.started()
        async with again.kernel(OPENS) as kernel:
            assert await kernel.run("print(open('kept.txt').read())") == "kept\n"

    asyncio.run(scenario())


def test_after_a_reboot_everybody_finds_their_files_and_their_lab(workshop, folder, participant):
    async def scenario():
        ana = await ready(participant, "ana")
        async with ana.kernel(OPENS) as kernel:
            for cell in (await ana.cells(OPENS))[:2]:
                await kernel.run(cell)
            await kernel.run("from pathlib import Path; Path('kept.txt').write_text('kept')")
            await kernel.run("lab.aws.client('s3').create_bucket(Bucket='kept-by-ana')")
        # What a reboot does: every process and namespace ends, and mounts, rules and addresses are gone.
        for process in running.own_processes(workshop):
            process.kill()
        down = await asyncio.to_thread(command, "down", folder)
        assert down.returncode == 0, down.stderr
        assert not running.status(workshop).at_work
        up = await asyncio.to_thread(command, "up", folder)
        assert up.returncode == 0, up.stderr
        await ana.log_in()
        await ana.started()
        async with ana.kernel(OPENS) as kernel:
            for cell in (await ana.cells(OPENS))[:2]:
                await kernel.run(cell)
            said = await kernel.run(
                "print(open('kept.txt').read(),"
                " [bucket['Name'] for bucket in lab.aws.client('s3').list_buckets()['Buckets']])"
            )
        assert said.startswith("kept [") and "'kept-by-ana'" in said

    asyncio.run(scenario())


def test_a_cell_that_takes_too_long_is_one_sentence(workshop, participant):
    async def scenario():
        ana = await ready(participant, "ana")
        async with ana.kernel(OPENS) as kernel:
            kernel.timeout = 1
            with pytest.raises(LabError, match="A cell took longer than 1 s"):
                await kernel.run("import time; time.sleep(3)")

    asyncio.run(scenario())


def test_a_hog_meets_its_limits_and_a_neighbour_goes_on(workshop, participant):
    async def scenario():
        ana, eve = await all_ready(participant, ["ana", "eve"])
        async with ana.kernel(OPENS) as hers, eve.kernel(OPENS) as kernel:
            await hers.run("kept = 'kept'")
            hogs = asyncio.ensure_future(kernel.run(HOGS))
            while not hogs.done():
                assert "kept" in await hers.run("print(kept)")
                await asyncio.wait([hogs], timeout=1)
        assert hogs.result().splitlines()[-1] == "True True True No space left on device"

    asyncio.run(scenario())
    assert {"ana", "eve"} <= set(running.status(workshop).at_work)
