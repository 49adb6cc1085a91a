"""In a running lab, no printed repair changes a second team's access or objects in AWS and in the cluster."""

import random
from itertools import combinations

import pytest

from labkit.course.faults import CATALOGUE
from tests.doctor.harm_live import Team, outcome

# Random pairs, and one pair about the webhook's registration, which everybody shares.
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
