"""The file with the columns of `kubectl get`: a mistake in it is one sentence that names the column."""

from pathlib import Path

import pytest

from labkit.simulator.kubernetes.api.tables import COLUMNS, columns
from labkit.simulator.kubernetes.objects.kinds import BY_NAME

IP = 'name = "IP", cell = "status.podIP"'


def test_each_kind_in_the_file_is_a_kind_of_the_api():
    assert set(columns(COLUMNS)) <= {*BY_NAME, ""}


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        (IP, f"{IP}, priorty = 1", "columns.toml, Pod, IP: unknown key priorty. Did you mean priority?"),
        (IP, 'name = "IP"', "columns.toml, Pod, IP: cell is missing."),
        ('"pod_ready()"', '"pod_redy()"', "columns.toml, Pod, Ready: unknown cell pod_redy. Did you mean pod_ready?"),
        ('"Images"', '"Image"', "columns.toml, Deployment: unknown shared column Image. Did you mean Images?"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path: Path, right: str, wrong: str, sentence: str):
    text = COLUMNS.read_text()
    assert right in text
    file = tmp_path / "columns.toml"
    file.write_text(text.replace(right, wrong, 1))
    with pytest.raises(ValueError) as raised:
        columns(file)
    assert str(raised.value) == sentence
