"""No printed repair changes what a second team may do, in a running lab: by STS, IAM, S3 and the API server."""

import random
from itertools import combinations

import pytest

from labkit.faults import CATALOGUE
from tests.doctor.harm_live import Team, outcome

# Drawn, and one more: the webhook's registration is everybody's.
PAIRS = [
    *random.Random(8).sample(list(combinations(CATALOGUE.values(), 2)), 6),
    (CATALOGUE["webhook-without-a-ca-bundle"], CATALOGUE["annotation-left-out"]),
]


@pytest.fixture(scope="module")
def team(lab):
    team = Team.beside()
    yield team
    team.lab.close()


@pytest.mark.kubectl
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "+".join(fault.id for fault in pair))
def test_the_repairs_of_two_faults_change_nothing_for_anybody_else(lab, healthy, team, pair):
    came_to = outcome(lab, team, healthy, pair, in_one_statement=bool(PAIRS.index(pair) % 2))
    assert came_to.harm == []
    assert came_to.ran + came_to.words > 0
