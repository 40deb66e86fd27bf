"""azurerm for Terraform's own binary where the real one can't be had: its schema, and nothing behind it.

    with serving(schema_file) as environment:
        subprocess.run(["terraform", "validate"], env=os.environ | environment)

Terraform reaches a provider by gRPC (protocol 6, its docs/plugin-protocol). For `validate`, and for `test` with mocked providers, it
asks for the schema and for validation alone; every answer but the schema is an empty message here: "no complaint". What azurerm's
own code would refuse (a name too long, two arguments that exclude each other) is therefore not seen.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

NESTING = {"single": 1, "list": 2, "set": 3, "map": 4, "group": 5}
ADDRESS = "registry.terraform.io/hashicorp/azurerm"


@contextmanager
def serving(schema_file: Path) -> Iterator[dict[str, str]]:
    """Serve a schema; yield the environment that has Terraform use it."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([_Provider(_answer(json.loads(schema_file.read_text())))])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    where = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    attach = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": where}
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps({ADDRESS: attach}), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    finally:
        server.stop(None).wait()


class _Provider(grpc.GenericRpcHandler):
    def __init__(self, schema: bytes) -> None:
        self._schema = schema

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = call.method.rpartition("/")
        if service != "/tfplugin6.Provider":
            return None
        answer = self._schema if method == "GetProviderSchema" else b""
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


def _answer(schema: dict[str, Any]) -> bytes:
    """Return GetProviderSchema's response, as protobuf writes it."""
    parts = [_bytes(1, _schema(schema["provider_schema"]))]
    for field, kind in ((2, "resource_schemas"), (3, "data_source_schemas")):
        parts += [_bytes(field, _bytes(1, name.encode()) + _bytes(2, _schema(one))) for name, one in schema[kind].items()]
    return b"".join(parts)


def _schema(schema: dict[str, Any]) -> bytes:
    return _number(1, schema.get("version", 0)) + _bytes(2, _block(schema["block"]))


def _block(block: dict[str, Any]) -> bytes:
    attributes = (_bytes(2, _attribute(name, one)) for name, one in block.get("attributes", {}).items())
    blocks = (_bytes(3, _nested(name, one)) for name, one in block.get("block_types", {}).items())
    return b"".join([*attributes, *blocks, _number(6, block.get("deprecated", False))])


def _attribute(name: str, one: dict[str, Any]) -> bytes:
    flags = {4: "required", 5: "optional", 6: "computed", 7: "sensitive", 9: "deprecated", 11: "write_only"}
    marks = (_number(field, one.get(flag, False)) for field, flag in flags.items())
    return b"".join([_bytes(1, name.encode()), _bytes(2, json.dumps(one["type"]).encode()), *marks])


def _nested(name: str, one: dict[str, Any]) -> bytes:
    limits = _number(4, one.get("min_items", 0)) + _number(5, one.get("max_items", 0))
    return _bytes(1, name.encode()) + _bytes(2, _block(one["block"])) + _number(3, NESTING[one["nesting_mode"]]) + limits


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value)) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
