"""A webhook's `matchConditions`: expressions in CEL. A request must meet all of them, or the webhook isn't called.

The lab's API server doesn't support `authorizer`, optional fields (`.?`), Kubernetes' own functions, or more than two
loops in an expression. It refuses a webhook configuration with such an expression.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchconditions
https://github.com/google/cel-spec
"""

import re

from labkit.simulator.kubernetes.api.admission_plugins import Review
from labkit.simulator.kubernetes.api.name_validation import label_key
from labkit.simulator.kubernetes.objects.status import StatusCause, duplicate, forbidden, invalid_value, required

VARIABLES = {"object", "oldObject", "request"}
FUNCTIONS = {
    "bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek",
    "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "int",
    "matches", "size", "startsWith", "string", "timestamp", "type", "uint",
}  # fmt: skip
LOOP = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(\s*(\w+)\s*,")
MOST, MOST_LOOPS = 64, 2


def validate(path: str, conditions: list[dict[str, str]]) -> list[StatusCause]:
    """Return the errors in these conditions."""
    causes, names = [], set()
    if len(conditions) > MOST:
        causes.append(StatusCause(path, f"Too many: {len(conditions)}: must have at most {MOST} items"))
    for number, condition in enumerate(conditions):
        field, name, expression = f"{path}[{number}]", condition.get("name", ""), condition.get("expression", "")
        if not name:
            causes.append(required(f"{field}.name"))
        else:
            causes += label_key(f"{field}.name", name)
        if name in names:
            causes.append(duplicate(f"{field}.name", name))
        names.add(name)
        if not expression.strip():
            causes.append(required(f"{field}.expression"))
        elif why := _fault(expression):
            causes.append(invalid_value(f"{field}.expression", expression, why))
    return causes


def hold(conditions: list[dict[str, str]], policy: str, review: Review, request: dict[str, object]) -> bool:
    """Return whether a webhook's ``conditions`` let the API server send the ``request`` to the webhook.

    If no condition is false, but one can't be evaluated, ``policy`` decides. For the `failurePolicy` Ignore, return
    False; for Fail, raise Forbidden.
    """
    if not conditions:
        return True
    import cel  # slow to import, and hardly any registration has conditions

    variables = {
        "object": request["object"],
        "oldObject": request["oldObject"],
        "request": {key: value for key, value in request.items() if key not in ("object", "oldObject")},
    }
    failed = []
    for condition in conditions:
        expression = condition["expression"]
        try:
            met = cel.evaluate(expression, variables)
            why = "" if isinstance(met, bool) else "must evaluate to bool"
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            met = True
            why = f"no such key: {error.args[0]}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        if why:
            failed.append(f"expression '{expression}' resulted in error: {why}")
        elif not met:
            return False
    if failed and policy != "Ignore":
        message = failed[0] if len(failed) == 1 else f"[{', '.join(failed)}]"
        raise forbidden(review.kind, review.name, message)
    return not failed


def _fault(expression: str) -> str:
    """Return the reason that the lab can't evaluate an expression."""
    import cel

    try:
        program = cel.compile(expression)
    except ValueError as error:
        return f"compilation failed: {str(error).partition('ERROR: ')[2].splitlines()[0] or error}"
    loops = LOOP.findall(expression)
    unknown = sorted({*program.variables()} - VARIABLES - {*loops})
    unknown += sorted({name for name in program.functions() if name.isidentifier()} - FUNCTIONS)
    if unknown:
        return f"the lab's API server doesn't evaluate {', '.join(unknown)}"
    if len(loops) > MOST_LOOPS:
        return f"the lab's API server evaluates at most {MOST_LOOPS} loops in an expression"
    return ""
