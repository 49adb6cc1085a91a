"""DynamoDB: the permissions on tables and indexes. moto answers the calls.

What differs from AWS:

- PartiQL, global tables, restores, and tables of another account: the lab can't derive the permissions, so only an
  administrator may use them.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
"""

import base64
import re
from typing import Any

from labkit.policy import resource_tags
from labkit.policy.reference import actions_on
from labkit.simulator.aws.backend import Backend, partition_keys
from labkit.simulator.aws.call import Api, CannotDerive, Context, ParsedRequest, Permission, as_dict, tag_keys
from labkit.simulator.aws.service import Service

LONGEST_CALL = 16 * 1024 * 1024
# The operations whose resource is an ARN in a parameter, and this parameter.
ON_ARN = {
    "DeleteBackup": "BackupArn",
    "DeleteResourcePolicy": "ResourceArn",
    "DescribeBackup": "BackupArn",
    "DescribeExport": "ExportArn",
    "DescribeImport": "ImportArn",
    "ExportTableToPointInTime": "TableArn",
    "GetResourcePolicy": "ResourceArn",
    "ListExports": "TableArn",
    "ListImports": "TableArn",
    "ListTagsOfResource": "ResourceArn",
    "PutResourcePolicy": "ResourceArn",
    "TagResource": "ResourceArn",
    "UntagResource": "ResourceArn",
}
# The members of a transaction, and the action that each needs on its item.
TRANSACTED = ("ConditionCheck", "Delete", "Get", "Put", "Update")
ATTRIBUTE_MAPS = ("AttributeUpdates", "Expected", "Item", "Key", "KeyConditions", "QueryFilter", "ScanFilter")
WORDS = {"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "BETWEEN", "IN", "BEGINS_WITH", "CONTAINS", "SIZE"}
WORDS |= {"ATTRIBUTE_EXISTS", "ATTRIBUTE_NOT_EXISTS", "ATTRIBUTE_TYPE", "IF_NOT_EXISTS", "LIST_APPEND"}
KNOWN = frozenset(
    f"dynamodb:{key}"
    for key in ("leadingkeys", "attributes", "select", "returnvalues", "returnconsumedcapacity", "fulltablescan")
) | {
    # These keys never have a value: moto's tables have one partition key, and the lab has no fault injection.
    "dynamodb:enclosingoperation", "dynamodb:firstpartitionkeyvalues", "dynamodb:fisactionid", "dynamodb:fistargetarns",
    "dynamodb:fourthpartitionkeyvalues", "dynamodb:secondpartitionkeyvalues", "dynamodb:thirdpartitionkeyvalues",
}  # fmt: skip


class DynamoDb(Service):
    """DynamoDB."""

    api = Api("dynamodb", target="DynamoDB", is_checked=True, reserved_tag="ValidationException", longest=LONGEST_CALL)
    stores = ("dynamodb", "dynamodbstreams")
    resource_types = {"tableName": "AWS::DynamoDB::Table"}
    data_events = re.compile("Batch|DeleteItem|Execute|GetItem|PutItem|Query|Scan|Transact|UpdateItem")

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return all permissions that a request to DynamoDB needs.

        A request that names several tables needs a permission on each table.
        """
        operation, parameters = request.operation, request.parameters
        tables = _Tables(request, self.backend)
        match operation:
            case "ListExports" | "ListImports" | "ListTables" if "TableArn" not in parameters:
                return [Permission(f"dynamodb:{operation}", f"{tables.prefix}*", {}, KNOWN)]
            case "BatchGetItem":
                return [
                    tables.items("BatchGetItem", name, wanted, wanted["Keys"])
                    for name, wanted in parameters["RequestItems"].items()
                ]
            case "BatchWriteItem":
                return [
                    tables.items("BatchWriteItem", name, {}, [_written(write) for write in writes])
                    for name, writes in parameters["RequestItems"].items()
                ]
            case "TransactGetItems" | "TransactWriteItems":
                parts = [pair for item in parameters["TransactItems"] for pair in item.items()]
                return [tables.transacted(member, part) for member, part in parts]
        if operation in actions_on("dynamodb", ""):
            return [Permission(f"dynamodb:{operation}", "*", {}, KNOWN)]
        if operation in ON_ARN:
            return [tables.by_arn(operation, parameters[ON_ARN[operation]])]
        if operation not in actions_on("dynamodb", "table"):
            raise CannotDerive(f"dynamodb:{operation}")
        items = [parameters[member] for member in ("Key", "Item") if member in parameters]
        needed = [tables.items(operation, parameters["TableName"], parameters, items)]
        if operation == "CreateTable" and parameters.get("Tags"):
            needed.append(tables.items("TagResource", parameters["TableName"], parameters, []))
        if operation == "CreateTable" and parameters.get("ResourcePolicy"):
            needed.append(tables.items("PutResourcePolicy", parameters["TableName"], parameters, []))
        return needed


class _Tables:
    """The permissions on the tables that a request names."""

    def __init__(self, request: ParsedRequest, backend: Backend):
        self.prefix = f"arn:aws:dynamodb:{request.region}:{request.account_id}:table/"
        self._request = request
        self._store = backend.store("dynamodb", request.region, request.account_id)

    def items(self, action: str, table: str, parameters: dict[str, Any], items: list[dict[str, Any]]) -> Permission:
        """Return the permission for ``action`` on a table or its index.

        ``items`` are the items in the request, or only their keys.
        """
        name = table.removeprefix(self.prefix)
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", name):
            raise CannotDerive(f"dynamodb:{action} on something that is not a table of this account and region")
        arn = self.prefix + name
        doubted: set[str] = set()
        described, index = self._store.tables.get(name), parameters.get("IndexName")
        if index is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", index):
            raise CannotDerive(f"dynamodb:{action} with an invalid index name")
        context = _context(action, parameters) | tag_keys(as_dict(parameters.get("Tags")))
        if self._request.operation.startswith("Transact"):
            context["dynamodb:EnclosingOperation"] = self._request.operation
        leading = _leading_keys(action, described, parameters, items)
        attributes = _attributes(action, parameters, items)
        if leading is None:
            doubted |= {"dynamodb:leadingkeys", "dynamodb:firstpartitionkeyvalues"}
        elif leading:
            context |= {"dynamodb:LeadingKeys": leading, "dynamodb:FirstPartitionKeyValues": leading}
        if attributes is None:
            doubted |= {"dynamodb:attributes"}
        elif attributes:
            context["dynamodb:Attributes"] = sorted(attributes)
        context |= _tags(described)
        resource = f"{arn}/index/{index}" if index else arn
        return Permission(
            f"dynamodb:{action}", resource, context, KNOWN, frozenset(doubted), resource_policy=self._policy(described)
        )

    def transacted(self, member: str, parameters: dict[str, Any]) -> Permission:
        if member not in TRANSACTED:
            raise CannotDerive(f"dynamodb:{self._request.operation} of {member}")
        item = parameters["Item"] if member == "Put" else parameters["Key"]
        return self.items(f"{member}Item", parameters["TableName"], parameters, [item])

    def by_arn(self, operation: str, arn: str) -> Permission:
        named = re.fullmatch(
            r"([A-Za-z0-9_.-]+)(/(backup|export|import|stream)/[A-Za-z0-9:._-]+)?", arn.removeprefix(self.prefix)
        )
        if not arn.startswith(self.prefix) or not named:
            raise CannotDerive(f"dynamodb:{operation} on something that is not in this account and region")
        given, table = self._request.parameters, self._store.tables.get(named[1])
        context = tag_keys(as_dict(given.get("Tags")), given.get("TagKeys")) | _tags(table)
        return Permission(f"dynamodb:{operation}", arn, context, KNOWN, resource_policy=self._policy(table))

    def _policy(self, table: Any) -> str:
        stored = self._store.resource_policies.get(table.table_arn) if table else None
        return stored.policy_doc if stored else ""


def _tags(table: Any) -> Context:
    return resource_tags(as_dict(table.tags) or {}) if table else {}


def _written(write: dict[str, Any]) -> Any:
    return write["PutRequest"]["Item"] if "PutRequest" in write else write["DeleteRequest"]["Key"]


def _context(action: str, parameters: dict[str, Any]) -> Context:
    names = ("ReturnConsumedCapacity", "ReturnValues", "Select")
    context: Context = {f"dynamodb:{name}": parameters[name] for name in names if name in parameters}
    if action in ("Query", "Scan"):
        projected = "ProjectionExpression" in parameters or "AttributesToGet" in parameters
        everything = "ALL_PROJECTED_ATTRIBUTES" if "IndexName" in parameters else "ALL_ATTRIBUTES"
        context.setdefault("dynamodb:Select", "SPECIFIC_ATTRIBUTES" if projected else everything)
        context["dynamodb:FullTableScan"] = str(action == "Scan").lower()
    return context


def _leading_keys(action: str, table: Any, parameters: dict[str, Any], items: list[dict[str, Any]]) -> list[str] | None:
    """Return the request's partition key values, or None if the lab can't derive them."""
    if action != "Query" and not items:
        return []
    if table is None:
        return None
    if action != "Query":
        values = [item.get(table.hash_key_attr) for item in items]
    elif (schema := _schema(table, parameters.get("IndexName"))) is None:
        return None
    else:
        hash_key = next((key["AttributeName"] for key in schema if key["KeyType"] == "HASH"), "")
        values = _queried(parameters, schema, hash_key)
    texts = [_text(value) for value in values]
    return None if not texts or None in texts else [text for text in texts if text is not None]


def _schema(table: Any, index: str | None) -> Any:
    if index is None:
        return table.schema
    return next((known.schema for known in table.all_indexes() if known.name == index), None)


def _queried(parameters: dict[str, Any], schema: list[dict[str, str]], hash_key: str) -> list[Any]:
    if "KeyConditions" in parameters:
        condition = parameters["KeyConditions"].get(hash_key, {})
        return condition.get("AttributeValueList", []) if condition.get("ComparisonOperator") == "EQ" else []
    names = parameters.get("ExpressionAttributeNames", {})
    values = parameters.get("ExpressionAttributeValues", {})
    return partition_keys(parameters.get("KeyConditionExpression", ""), values, names, schema)


def _text(value: Any) -> str | None:
    match value:
        case {"S": str(text)} | {"N": str(text)}:
            return text
        case {"B": bytes(content)}:
            return base64.b64encode(content).decode()
    return None


def _attributes(action: str, parameters: dict[str, Any], items: list[dict[str, Any]]) -> set[str] | None:
    """Return the top-level attributes that the request names, or None for all attributes."""
    projected = "ProjectionExpression" in parameters or "AttributesToGet" in parameters
    if action in ("GetItem", "BatchGetItem", "Query", "Scan") and not projected and parameters.get("Select") != "COUNT":
        return None
    if parameters.get("ReturnValues", "NONE") in ("ALL_OLD", "ALL_NEW"):
        return None
    names = {name for item in items for name in item} | set(parameters.get("AttributesToGet", []))
    names |= {name for member in ATTRIBUTE_MAPS for name in parameters.get(member, {})}
    expressions = (value for member, value in parameters.items() if member.endswith("Expression"))
    return names.union(*(_named(each, parameters.get("ExpressionAttributeNames", {})) for each in expressions))


def _named(expression: str, placeholders: dict[str, str]) -> set[str]:
    names = re.findall(r"(?<![\w:#.])(?:#\w+|[A-Za-z_]\w*)", expression)
    return {placeholders.get(name, name) for name in names if name.upper() not in WORDS}
