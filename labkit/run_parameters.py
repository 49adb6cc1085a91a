"""The parameters of a run, and the rule for each of them."""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import resources
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from labkit.errors import LabError, UnknownName, in_a_terminal

# The first line of the cell that papermill injects.
INJECTED = "# Parameters"
# Marks on everything that a run makes: tags in AWS, labels (in which a colon isn't allowed) in Kubernetes.
LAB, LAB_TAG, RUN_TAG = "irsa", "labkit:lab", "labkit:run"
LAB_LABEL, RUN_LABEL = "labkit/lab", "labkit/run"

CHANGE = "change it, and run again"
FIND_CONTEXT = (
    'kubectl config get-contexts, which lists the contexts of ~/.kube/config. Then set kubeconfig = "~/.kube/config"'
    + in_a_terminal("kubeconfig", "~/.kube/config")
)


class InvalidParameter(LabError):
    """A parameter's value breaks its rule. The text names the parameter, its value and the rule."""


def parameters() -> dict[str, object]:
    """Return the parameters that the notebook or the script has set, by name.

    In a notebook, they come from the cells that have run so far, including the cell that papermill injects. The last
    assignment to a name counts. In a script, they are the global variables with the parameters' names.

    Raises:
        UnknownName: a cell that sets parameters also assigns an unknown name.

    https://papermill.readthedocs.io/en/latest/usage-parameterize.html
    """
    # Python keeps a script's variables here. A kernel keeps a notebook's, including `In`, the list of its cells.
    namespace = vars(sys.modules["__main__"])
    cells = namespace.get("In")
    # nbval keeps no history: even the calling cell is missing from it.
    if not isinstance(cells, list) or "get_ipython" not in namespace or not any(cells):
        return {name: namespace[name] for name in Parameters.names() if isinstance(namespace.get(name), str)}
    return read_cells(cells, namespace)


def read_cells(cells: Iterable[str], namespace: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that `cells` assign, by name. The last assignment to a name counts.

    `cells` are in the order in which they ran. `namespace` has the notebook's variables: it provides the values that a
    cell computes. Raises `UnknownName` if a cell that sets parameters also assigns an unknown name.
    """
    known = Parameters.names()
    values: dict[str, Any] = {}
    for cell in cells:
        try:
            statements = ast.parse(cell).body
        except SyntaxError:
            continue
        assigned = _assignments(statements)
        injected = cell.lstrip().startswith(INJECTED)
        # A kernel doesn't see tags. So a cell of parameters is one that only assigns names, most of them parameters.
        is_parameters_cell = injected or (
            len(assigned) == len(statements) and 2 * sum(name in known for name, _ in assigned) > len(assigned)
        )
        for name, node in assigned:
            try:
                value = ast.literal_eval(node)
            except ValueError:  # the value is computed
                if name in known and is_parameters_cell and isinstance(namespace.get(name), str):
                    values[name] = namespace[name]
                continue
            if name in known:
                values[name] = value
            elif is_parameters_cell:
                where = "the parameters for papermill" if injected else "the notebook's cell of parameters"
                raise _unknown(name, where)
    return values


def _text(value: Any) -> Any:
    # papermill turns a value that looks like a number into one: `-p namespace 42`.
    return str(value) if type(value) is int else value


def _matches(pattern: str, rule: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _region(value: str) -> str:
    known = {each for partition in partitions() for each in partition["regions"] if not each.endswith("-global")}
    if value not in known:
        raise ValueError(f"a region that botocore knows, such as us-east-1 or eu-central-1 ({len(known)} in all)")
    return value


def partitions() -> list[dict[str, Any]]:
    """Return AWS's partitions, as botocore's data describes them."""
    text = resources.files("botocore").joinpath("data/partitions.json").read_text()
    described: list[dict[str, Any]] = json.loads(text)["partitions"]
    return described


def _bucket(value: str) -> str:
    rule = (
        "3 to 63 lower-case letters, digits, dots and hyphens, a letter or digit at both ends, no two dots in a row, "
        "not an IP address, and none of S3's reserved prefixes and suffixes"
    )
    good = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value) and ".." not in value
    reserved = value.startswith(("xn--", "sthree-", "amzn-s3-demo-")) or value.endswith(
        ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
    )
    if not good or reserved or is_ipv4(value):
        raise ValueError(rule)
    return value


def is_ipv4(value: str) -> bool:
    """Return whether `value` is an IPv4 address, written as four numbers."""
    try:
        IPv4Address(value)
    except ValueError:
        return False
    return True


def _subdomain(value: str) -> str:
    label = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    if len(value) > 253 or not re.fullmatch(rf"{label}(\.{label})*", value):
        raise ValueError(
            "a DNS-1123 subdomain: at most 253 lower-case letters, digits, hyphens and dots, a letter or digit at both "
            "ends of each part"
        )
    return value


def _file(value: str) -> str:
    try:
        file = Path(value).expanduser()
        problem = "" if file.is_file() else "this is a folder" if file.is_dir() else "this file does not exist"
    except (OSError, RuntimeError) as error:  # no user has that home, or the name is too long
        problem = getattr(error, "strerror", None) or str(error)
    if value and problem:
        raise ValueError(f"empty, or a kubeconfig file that exists ({problem})")
    return value


Text = Annotated[str, BeforeValidator(_text)]


class Parameters(BaseModel):
    """The parameters of a run. The defaults are the notebooks' own values. An instance can't be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    target: Literal["moto", "kind", "eks"] = Field("moto", description="where the lab runs: moto, kind or eks")
    cluster: Annotated[
        Text,
        _matches(
            r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}",
            "1 to 100 letters, digits, hyphens and underscores, a letter or digit first",
        ),
    ] = Field("blue", description="the EKS cluster's name")
    region: Annotated[str, AfterValidator(_region)] = Field("us-east-1", description="the AWS region")
    namespace: Annotated[
        Text,
        _matches(
            r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            "a DNS-1123 label: 1 to 63 lower-case letters, digits and hyphens, a letter or digit at both ends",
        ),
    ] = Field("default", description="the Kubernetes namespace")
    service_account: Annotated[Text, AfterValidator(_subdomain)] = Field(
        "my-service-account", description="the service account that may take the role"
    )
    role_name: Annotated[
        Text, _matches(r"[\w+=,.@-]{1,64}", "1 to 64 letters, digits and any of + = , . @ - _ (a name, not an ARN)")
    ] = Field("my-role", description="the IAM role's name")
    policy_arn: Annotated[
        str,
        _matches(
            r"arn:aws[a-z-]*:iam::(aws|\d{12}):policy/[\x21-\x7e]+", "the ARN of a policy, arn:aws:iam::…:policy/NAME"
        ),
    ] = Field("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess", description="the policy that says what the role may do")
    bucket: Annotated[Text, AfterValidator(_bucket)] = Field("irsa-lab", description="the bucket that the pod lists")
    account_id: Annotated[
        Text, _matches(r"(\d{12})?", "empty, or 12 digits (papermill keeps a leading zero with -r account_id …)")
    ] = Field("", description="the AWS account; has to be named on eks")
    kubeconfig: Annotated[str, AfterValidator(_file)] = Field(
        "", description="the kubeconfig of a cluster that exists (kind, eks)"
    )
    context: Annotated[Text, _matches(r"\S*", "empty, or a context's name, without white space")] = Field(
        "", description="the context in that kubeconfig"
    )
    image: Annotated[Text, _matches(r"\S*", "empty, or an image's name, without white space")] = Field(
        "", description="the pod's image; empty: amazon/aws-cli"
    )
    confirm: Annotated[Text, _matches("(yes)?", "empty, or yes")] = Field(
        "", description="yes, once you have read the plan (eks)"
    )

    @classmethod
    def checked(cls, **values: Any) -> "Parameters":
        """Return parameters with these values. A parameter without a value gets its default.

        Raises:
            UnknownName: the only fault is one name that isn't a parameter.
            InvalidParameter: a value breaks its rule, or several names aren't parameters.
        """
        unknown = [_unknown(name) for name in values if name not in cls.names()]
        known = {name: value for name, value in values.items() if name in cls.names()}
        faults: list[Any] = []
        try:
            checked = cls(**known)
        except ValidationError as error:
            faults = list(error.errors())
        if len(unknown) == 1 and not faults:
            raise unknown[0]
        if unknown or faults:
            raise InvalidParameter(
                "\n".join([*(error.what for error in unknown), *map(_explain, faults)]),
                where="the lab's parameters; nothing was changed",
                next=FIND_CONTEXT if any(fault["loc"][0] == "kubeconfig" for fault in faults) else CHANGE,
            ) from None
        return checked

    @classmethod
    def names(cls) -> list[str]:
        """Return the parameters' names, in the order in which notebooks list them."""
        return list(cls.model_fields)

    @property
    def given(self) -> dict[str, str]:
        """The parameters that the user set, by name, including those set to their default."""
        return self.model_dump(exclude_unset=True)

    @property
    def run(self) -> str:
        """The value of the run's tag in AWS.

        This is the run's name, in the form `cluster/namespace/service account/role`. If IAM doesn't allow the name as
        a tag's value, the value is the name as `tag_value` changes it.
        """
        return tag_value(f"{self.cluster}/{self.namespace}/{self.service_account}/{self.role_name}")

    @property
    def subject(self) -> str:
        """The subject (claim `sub`) in the service account's tokens.

        https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
        """
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"

    @property
    def is_usual(self) -> bool:
        """Whether `namespace` and `service_account` have their defaults, as in the notebooks."""
        usual = type(self).model_fields
        return (self.namespace, self.service_account) == (usual["namespace"].default, usual["service_account"].default)

    @property
    def tags(self) -> list[dict[str, str]]:
        """The tags of all resources that this run makes in AWS."""
        return [{"Key": LAB_TAG, "Value": LAB}, {"Key": RUN_TAG, "Value": self.run}]

    @property
    def up_command(self) -> str:
        """The command that starts the lab with this cluster, for the targets moto and kind."""
        named = {"target": self.target, "cluster": self.cluster, "region": self.region}
        usual = type(self).model_fields
        return " ".join(["labkit up", *(f"--{name} {it}" for name, it in named.items() if it != usual[name].default)])

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all Kubernetes objects that this run makes.

        One is the lab's label. The other has the run's name, as `label_value` returns it.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
        """
        return {LAB_LABEL: LAB, RUN_LABEL: label_value(self.run)}


def _unknown(name: str, where: str = "") -> UnknownName:
    return UnknownName("parameter of the lab", name, Parameters.names(), where=where, next="rename it, and run again")


def tag_value(run: str) -> str:
    """Return a run's name as a tag's value.

    A name that IAM doesn't allow is changed: each invalid character becomes `_`, a long name is cut, and a hash of the
    run's name is added.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html#id_tags_rules_creating
    """
    if re.fullmatch(r"[A-Za-z0-9_.:/=+@-]{1,256}", run):
        return run
    return f"{re.sub(r'[^A-Za-z0-9_.:/=+@-]', '_', run)[:240]}-{hashlib.sha256(run.encode()).hexdigest()[:10]}"


def label_value(run: str) -> str:
    """Return a run's name as a label's value. Each slash becomes a dot.

    A value that Kubernetes doesn't allow is changed: each invalid character becomes `_`, a long value is cut, and a
    hash of the run's name is added.
    """
    value = run.replace("/", ".")
    if len(value) <= 63 and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value):
        return value
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", value)[:52].rstrip("._-")
    return f"{kept}-{hashlib.sha256(run.encode()).hexdigest()[:10]}"


def _explain(fault: Any) -> str:
    name, value = fault["loc"][0], fault["input"]
    if fault["type"] == "value_error":
        rule = str(fault["ctx"]["error"])
    elif fault["type"] == "literal_error":
        rule = f"one of {fault['ctx']['expected']}"
    else:
        rule = f"text, not {type(value).__name__}"
    shown = repr(value) if len(repr(value)) <= 80 else f"{value!r:.70}… ({len(str(value))} characters)"
    return f"parameter {name} = {shown} breaks its rule: {rule}."


def _assignments(statements: Iterable[ast.stmt]) -> list[tuple[str, ast.expr]]:
    assignments = []
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assignments.append((name, value))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                assignments.append((name, value))
    return assignments
