"""Write labkit/simulator/kubernetes/objects/schema.json from the Go types of the Kubernetes API.

    python tests/simulator/kubernetes/write_schema.py FOLDER

FOLDER holds `k8s.io/api` and `k8s.io/apimachinery` (Debian: golang-k8s-api-dev and golang-k8s-apimachinery-dev).
Only facts that the wire formats need are kept: a field's JSON name, type, protobuf number and how lists are merged.
"""

import json
import re
import sys
from pathlib import Path

PACKAGES = {
    "core": "api/core/v1",
    "apps": "api/apps/v1",
    "rbac": "api/rbac/v1",
    "authentication": "api/authentication/v1",
    "authorization": "api/authorization/v1",
    "admissionregistration": "api/admissionregistration/v1",
    "autoscaling": "api/autoscaling/v1",
    "coordination": "api/coordination/v1",
    "meta": "apimachinery/pkg/apis/meta/v1",
}
ROOTS = [
    "core.Pod",
    "core.Namespace",
    "core.ServiceAccount",
    "core.ConfigMap",
    "core.Secret",
    "core.Node",
    "core.Event",
    "core.Binding",
    "core.Service",
    "apps.Deployment",
    "apps.ReplicaSet",
    "autoscaling.Scale",
    "rbac.Role",
    "rbac.RoleBinding",
    "rbac.ClusterRole",
    "rbac.ClusterRoleBinding",
    "authentication.TokenRequest",
    "authentication.TokenReview",
    "authentication.SelfSubjectReview",
    "authorization.SelfSubjectAccessReview",
    "authorization.SubjectAccessReview",
    "authorization.LocalSubjectAccessReview",
    "authorization.SelfSubjectRulesReview",
    "admissionregistration.MutatingWebhookConfiguration",
    "coordination.Lease",
    "meta.DeleteOptions",
]
# Fields that Kubernetes added after these packages.
YOUNGER = {
    "core.PodStatus": [["observedGeneration", "int64", 17]],
    "core.PodCondition": [["observedGeneration", "int64", 7]],
    "core.Lifecycle": [["stopSignal", "*string", 3]],
    "core.ContainerStatus": [["stopSignal", "*string", 15]],
}
KNOWN = {
    "metav1.Time": "time",
    "metav1.MicroTime": "microtime",
    "meta.Time": "time",
    "meta.MicroTime": "microtime",
    "resource.Quantity": "quantity",
    "intstr.IntOrString": "intstr",
    "runtime.RawExtension": "raw",
    "meta.FieldsV1": "fields",
    "types.UID": "string",
    "types.NodeName": "string",
    "[]byte": "bytes",
}
BASIC = {"string", "int32", "int64", "bool", "float64", "bytes", "time", "microtime", "quantity", "intstr", "raw"}
BASIC |= {"fields"}
STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
ALIAS = re.compile(r"^type (\w+) ([\w.\[\]*]+)\s*$", re.M)
FIELD = re.compile(r"^\s*(?:(\w+)\s+)?([\w.\[\]*]+)\s+`(.*?)`")


def main(folder: Path) -> None:
    structs, aliases = {}, {}
    for package, path in PACKAGES.items():
        for file in sorted((folder / path).glob("*.go")):
            if file.name.endswith("_test.go") or "generated" in file.name:
                continue
            text = file.read_text()
            structs |= {f"{package}.{name}": (package, body) for name, body in STRUCT.findall(text)}
            aliases |= {f"{package}.{name}": (package, target) for name, target in ALIAS.findall(text)}

    def resolve(package: str, go: str) -> str:
        if go.startswith("*"):
            return "*" + resolve(package, go[1:])
        if go == "[]byte":
            return "bytes"
        if go.startswith("[]"):
            return "[]" + resolve(package, go[2:])
        if go.startswith("map["):
            return "{}" + resolve(package, go[go.index("]") + 1 :])
        if go in BASIC:
            return go
        if go == "int":
            return "int64"
        go = go.replace("metav1.", "meta.").replace("v1.", "core.") if "." in go else f"{package}.{go}"
        if go in KNOWN:
            return KNOWN[go]
        if go in structs:
            return go
        if go in aliases:
            target = resolve(*aliases[go])
            return "!" + target if target.startswith("[]") else target
        raise SystemExit(f"unknown type {go} in {package}")

    schema, todo = {}, list(ROOTS)
    while todo:
        name = todo.pop()
        if name in schema:
            continue
        package, body = structs[name]
        fields = schema[name] = []
        comments: list[str] = []
        for line in body.splitlines():
            if line.strip().startswith("//"):
                comments.append(line.strip()[2:].strip())
                continue
            found = FIELD.match(line)
            if not found:
                comments = [] if not line.strip() else comments
                continue
            tags = dict(re.findall(r'(\w+):"([^"]*)"', found[3]))
            label, *options = tags.get("json", "-").split(",")
            if label == "-" or found[2] in ("metav1.TypeMeta", "TypeMeta"):
                comments = []
                continue
            kind = resolve(package, found[2])
            number = int(tags["protobuf"].split(",")[1]) if "protobuf" in tags else 0
            extra = {}
            if "inline" in options:
                label, extra["inline"] = "", 1
            if tags.get("patchStrategy"):
                extra["patch"] = tags["patchStrategy"]
            if tags.get("patchMergeKey"):
                extra["key"] = tags["patchMergeKey"]
            for comment in comments:
                if comment.startswith("+listType="):
                    extra["list"] = comment.split("=", 1)[1]
                if comment.startswith("+listMapKey="):
                    extra.setdefault("keys", []).append(comment.split("=", 1)[1])
                if comment.startswith(("+structType=atomic", "+mapType=atomic")):
                    extra["atomic"] = 1
            fields.append([label, kind, number, extra] if extra else [label, kind, number])
            comments = []
            element = re.sub(r"^[!*\[\]{}]+", "", kind)
            if element not in BASIC:
                todo.append(element)
        there = {field[0] for field in fields}
        fields += [field for field in YOUNGER.get(name, ()) if field[0] not in there]
    target = Path(__file__).parents[3] / "labkit/simulator/kubernetes/objects/schema.json"
    lines = [
        f"{json.dumps(name)}: {json.dumps(fields, separators=(',', ':'))}" for name, fields in sorted(schema.items())
    ]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(schema), "types,", target.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
