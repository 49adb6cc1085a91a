"""Measure and print every number; name some to measure only those: `python -m tests.bench up memory`."""

import platform
import sys

from tests.bench import doctor, fleet, keeping, kubernetes_api, lab, own_tests, policy, role_sessions, web_identity
from tests.workshop import board_of_200

MEASURES = {
    "up": ("labkit up, from nothing to ready", lab.up),
    "again": ("labkit up, 1,000 objects, 10,000 calls", kubernetes_api.again),
    "memory": ("the server at rest", lab.memory),
    "run": ("labkit run, in a ready environment", lab.run),
    "objects": ("the Kubernetes API, 1,000 pods", kubernetes_api.objects),
    "running": ("kubectl, one pod after the other", kubernetes_api.running),
    "web-identity": ("AssumeRoleWithWebIdentity", web_identity.rates),
    "get-object": ("GetObject, 1 KiB, by a role session", role_sessions.get_object),
    "sessions": ("a call, by live role sessions", role_sessions.sessions),
    "keeping": ("what keeping adds, by service and objects", keeping.added),
    "policy": ("a decision, 20 statements and a boundary", policy.decisions),
    "doctor": ("the doctor, one service account", doctor.one),
    "doctor-all": ("the doctor, 500 service accounts", doctor.every),
    "board": ("the workshop's board, 200 labs", board_of_200.labs),
    "fleet": ("labkit fleet, 200 runs over 20 clusters", fleet.against_xargs),
    "fleet-workers": ("labkit fleet, 1 and 2 workers", fleet.by_workers),
    "fleet-memory": ("labkit fleet, the command's own memory", fleet.memory),
    "fleet-model": ("labkit fleet, 10,000 runs an hour", fleet.model),
    "own-tests": ("the pytest plugin, a session and its tests", own_tests.fixtures),
    "collection": ("pytest --collect-only, with the plugin", own_tests.collection),
    "notebooks": ("nbval, every notebook once, two workers", lab.notebooks),
}


def main() -> None:
    names = sys.argv[1:] or list(MEASURES)
    if unknown := set(names) - set(MEASURES):
        sys.exit(f"no such measure: {', '.join(unknown)}. There are: {', '.join(MEASURES)}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in names:
        title, measure = MEASURES[name]
        print(f"{title:42} {measure()}", flush=True)


main()
