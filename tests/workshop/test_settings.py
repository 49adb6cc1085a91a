"""What a leader can get wrong in workshop.yaml is one sentence, and changes nothing."""

import subprocess
import sys

import pytest
import yaml

from labkit.errors import LabError
from labkit.workshop import read, write_examples
from labkit.workshop.seats import take, taken
from labkit.workshop.settings import EXAMPLE


def written(folder, **changed):
    settings = yaml.safe_load(EXAMPLE) | {"state": str(folder / "state")} | changed
    (folder / "workshop.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_the_example_can_be_read_and_is_never_written_over(tmp_path):
    write_examples(tmp_path / "class")
    assert read(tmp_path / "class").names == ["ana", "ben", "chi"]
    with pytest.raises(LabError, match=r"workshop\.yaml exists already"):
        write_examples(tmp_path / "class")


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"names": ["ana", "ana"]}, "The name ana is there twice"),
    ({"names": ["ana", "leader"]}, "The name leader is there twice"),
    ({"names": ["ana", "Ana"]}, "names.1: 'Ana' can't be a name"),
    ({"names": [""]}, "names.0: '' can't be a name"),
    ({"names": ["a" * 300]}, "names.0: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…' can't be a name"),
    ({"names": ["$(id)"]}, r"names.0: '\$\(id\)' can't be a name"),
    ({"names": ["../ben"]}, "names.0: '../ben' can't be a name"),
    ({"names": ["root"]}, "names.0: 'root' can't be a name"),
    ({"names": [], "phrase": ""}, "Nobody could log in"),
    ({"phrase": "short"}, "The phrase needs at least 8 characters"),
    ({"users": 3}, "4 names are more than users: 3"),
    ({"users": 100, "network": "10.77.0.0/24"}, "has too few addresses for 100 users"),
    ({"network": "10.77.0.1/24"}, "network: "),
    ({"address": "here"}, "The address 'here' must be an IP address and a port"),
    ({"address": "127.0.0.1:99999"}, "The address '127.0.0.1:99999' must be"),
    ({"limits": {"memory": 1}}, "limits.memory: Input should be greater than or equal to 512"),
    ({"notebooks": ["77"]}, "notebooks.0: '77' isn't a notebook's number. The course has 00, 01, "),
    ({"nmaes": []}, "'nmaes' is not a setting. Did you mean 'names'?"),
    ({"limits": {"memry": 700}}, "'limits.memry' is not a setting. Did you mean 'limits.memory'?"),
    ({"tls": {"cert": "a", "key": "b"}}, "'tls.cert' is not a setting. Did you mean 'tls.certificate'?"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(tmp_path, changed, sentence):
    with pytest.raises(LabError, match=sentence):
        read(written(tmp_path, **changed))
    assert not (tmp_path / "state").exists()


def test_a_file_that_is_missing_or_no_yaml_is_one_sentence(tmp_path):
    with pytest.raises(LabError, match=r"has no workshop\.yaml"):
        read(tmp_path)
    (tmp_path / "workshop.yaml").write_text("a: [")
    with pytest.raises(LabError, match=r"can't be read: line 1: expected .*\nwhere: .*\nnext:  correct workshop\.yaml"):
        read(tmp_path)
    (tmp_path / "workshop.yaml").write_bytes(b"title: Gr\xfc\xdfe")
    with pytest.raises(LabError, match=r"can't be read: 'utf-8' codec can't decode"):
        read(tmp_path)


def test_a_seat_stays_its_owner_s_and_the_next_one_after_the_last_is_refused(tmp_path):
    workshop = read(written(tmp_path, users=4))
    workshop.state.mkdir()
    for name in ("ana", "ben", "chi", "dan"):
        take(workshop, name)
    assert take(workshop, "ben").uid == workshop.uids + 1
    assert len({(seat.uid, seat.address, seat.link) for seat in taken(workshop).values()}) == 4
    with pytest.raises(LabError, match="The workshop is full: 4 people"):
        take(workshop, "eve")


def test_without_jupyterhub_the_command_names_what_to_install(tmp_path):
    hidden = "import sys; sys.modules['jupyterhub'] = None; import labkit.cli.__main__ as m; m.main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "workshop", "up", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "pip install 'labkit[workshop]'" in done.stderr and "Traceback" not in done.stderr
