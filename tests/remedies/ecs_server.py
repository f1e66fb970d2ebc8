# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that answers as the API of ECS does, on this machine: actions, signatures, errors, pages, dry runs, expiry.

Shapes and codes are those of the API's documentation (version 2014-05-26). Requests are those of the real SDK: RPC
parameters in the query, signed with ACS3-HMAC-SHA256, which is checked here with the secret as the API would.
"""

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
import pytest

from corpus.archive import cache_folder
from ejectable import host
from ejectable.remedies import Situation
from ejectable.remedies.ecs import service

__all__ = [
    "INSTANCE",
    "KEY",
    "REGION",
    "SECRET",
    "TOKEN",
    "Api",
    "Fault",
    "Kind",
    "Machine",
    "answering",
    "become",
    "elsewhere",
    "one_process",
    "serving",
]

KEY, SECRET, TOKEN = "LTAI5tEjectableTestKey00", "s3cr3tOfTheTests0123456789abcd", "CAISejectableTokenOfTheTests" * 4
REGION = "cn-hangzhou"
ZONE = "cn-hangzhou-h"
INSTANCE = "i-bp1ejectable00000000"


class Fault(msgspec.Struct):
    """What goes wrong with an action, `times` times, after `skip` good ones. `kind`: how it is wrong."""

    action: str
    code: str = ""
    message: str = "The request was refused."
    status: int = 400
    times: int = 1
    skip: int = 0
    kind: str = "error"  # error, hang, html, huge, redirect, shape, drop


class Machine(msgspec.Struct):
    """An instance. `looks` is how often it is seen on the way before it has stopped or started."""

    type: str = "ecs.g7.large"
    status: str = "Running"
    charge: str = "PostPaid"
    network: str = "vpc"
    spot: str = "NoSpot"
    looks: int = 0
    bits: str = "virtio0 1 bound\nvirtio1 1 bound\n"  # what Cloud Assistant prints
    assistant: str = "Success"
    towards: str = ""
    left: int = 0


class Kind(msgspec.Struct, frozen=True):
    """An instance type."""

    vcpus: int
    memory: float  # GiB
    arch: str = "X86"
    nvme: str = "supported"
    gpus: int = 0
    local_disks: int = 0


TYPES = {
    "ecs.g5.large": Kind(2, 8, nvme="unsupported"),
    "ecs.g7.large": Kind(2, 8, nvme="unsupported"),
    "ecs.g7.xlarge": Kind(4, 16, nvme="unsupported"),
    "ecs.g8i.large": Kind(2, 8),
    "ecs.g8i.xlarge": Kind(4, 16),
    "ecs.g8i.2xlarge": Kind(8, 32),
    "ecs.g8a.large": Kind(2, 8),
    "ecs.g8ine.large": Kind(2, 8, nvme="required"),
    "ecs.g9i.large": Kind(2, 8, nvme="required"),
    "ecs.g8y.large": Kind(2, 8, arch="ARM"),
    "ecs.c8i.large": Kind(2, 4),
    "ecs.r8i.large": Kind(2, 16),
    "ecs.i4.large": Kind(2, 16, nvme="unsupported", local_disks=1),
    "ecs.gn8is.large": Kind(2, 8, gpus=1),
    "ecs.gn7i-c8g1.2xlarge": Kind(8, 30, nvme="unsupported", gpus=1),
    "ecs.t6-c1m1.small": Kind(1, 1, nvme="unsupported"),
}


class Api:
    """What the server knows. `faults` are used up; `asked` lists (action, parameters) in order."""

    def __init__(self) -> None:
        self.instances: dict[str, Machine] = {INSTANCE: Machine()}
        self.types = dict(TYPES)
        self.stock = dict.fromkeys(("ecs.g8i.large", "ecs.g8i.xlarge", "ecs.c8i.large", "ecs.g7.xlarge"), "WithStock")
        self.far_stock: dict[str, str] = {}  # with MigrateAcrossZone
        self.page = 3
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.sts = False  # temporary credentials are what this account has
        self.tokens: list[str] = []
        self.orders = 0
        self.followed: list[dict[str, str]] = []  # requests that followed a redirect

    def actions(self) -> list[str]:
        """What was asked for, in order."""
        return [action for action, _ in self.asked]

    def fault(self, action: str) -> Fault | None:
        for one in self.faults:
            if one.action in (action, "*") and one.times > 0:
                if one.skip > 0:
                    one.skip -= 1
                    return None
                one.times -= 1
                return one
        return None

    def answer(self, action: str, asked: Mapping[str, str]) -> tuple[int, Any]:
        """Status and body for a request whose signature is right."""
        method = getattr(self, f"_{action}", None)
        if method is None:
            return _refused("InvalidAction.NotFound", "Specified api is not found.", 404)
        answered: tuple[int, Any] = method(asked)
        return answered

    def _DescribeInstances(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        wanted = json.loads(asked.get("InstanceIds", "[]"))
        found = [self._instance(one, self.instances[one]) for one in wanted if one in self.instances]
        pages = {"PageNumber": 1, "PageSize": 10, "TotalCount": len(found)}
        return 200, {"RequestId": "r", "Instances": {"Instance": found}} | pages

    def _instance(self, identifier: str, machine: Machine) -> dict[str, Any]:
        if machine.towards:
            if machine.left <= 0:
                machine.status, machine.towards = machine.towards, ""
            machine.left -= 1
        kind = self.types[machine.type]
        return {
            "InstanceId": identifier,
            "InstanceType": machine.type,
            "InstanceTypeFamily": machine.type.rpartition(".")[0],
            "Status": machine.status,
            "RegionId": REGION,
            "ZoneId": ZONE,
            "InstanceChargeType": machine.charge,
            "InstanceNetworkType": machine.network,
            "SpotStrategy": machine.spot,
            "Cpu": kind.vcpus,
            "Memory": int(kind.memory * 1024),
            "GPUAmount": kind.gpus,
            "OperationLocks": {"LockReason": []},
        }

    def _DescribeInstanceTypes(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        wanted = [value for name, value in asked.items() if name.startswith("InstanceTypes.")]
        least = (float(asked.get("MinimumCpuCoreCount", 0)), float(asked.get("MinimumMemorySize", 0)))
        most = (float(asked.get("MaximumCpuCoreCount", 1e9)), float(asked.get("MaximumMemorySize", 1e9)))
        found = [
            name
            for name, kind in sorted(self.types.items())
            if (not wanted or name in wanted)
            and least[0] <= kind.vcpus <= most[0]
            and least[1] <= kind.memory <= most[1]
            and asked.get("CpuArchitecture", kind.arch) == kind.arch
        ]
        start = int(asked.get("NextToken", "0"))
        end = start + self.page
        page = [self._type(name, self.types[name]) for name in found[start:end]]
        token = str(end) if end < len(found) else ""
        return 200, {"RequestId": "r", "InstanceTypes": {"InstanceType": page}, "NextToken": token}

    def _type(self, name: str, kind: Kind) -> dict[str, Any]:
        body = {
            "InstanceTypeId": name,
            "InstanceTypeFamily": name.rpartition(".")[0],
            "CpuCoreCount": kind.vcpus,
            "MemorySize": kind.memory,
            "CpuArchitecture": kind.arch,
            "NvmeSupport": kind.nvme,
            "GPUAmount": kind.gpus,
        }
        return body | ({"LocalStorageAmount": kind.local_disks} if kind.local_disks else {})

    def _DescribeResourcesModification(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        if asked.get("DestinationResource") != "InstanceType":
            return _refused("Invalid.DestinationResource", "The specified DestinationResource is not valid.", 404)
        if asked["ResourceId"] not in self.instances:
            return _refused("InvalidResourceId.NotFound", "The specified ResourceId is not found in our records.", 404)
        stock = self.far_stock if asked.get("MigrateAcrossZone") == "true" else self.stock
        if asked.get("OperationType") == "Downgrade":
            stock = {}
        listed = [
            {"Value": name, "Status": "SoldOut" if kind == "WithoutStock" else "Available", "StatusCategory": kind}
            for name, kind in stock.items()
        ]
        resource = {"Type": "InstanceType", "SupportedResources": {"SupportedResource": listed}}
        zone = {"ZoneId": ZONE, "RegionId": REGION, "Status": "Available", "StatusCategory": "WithStock"}
        return 200, {
            "RequestId": "r",
            "AvailableZones": {"AvailableZone": [zone | {"AvailableResources": {"AvailableResource": [resource]}}]},
        }

    def _change(self, asked: Mapping[str, str], charge: str) -> tuple[int, Any]:
        machine = self.instances.get(asked["InstanceId"])
        if machine is None:
            return _refused("InvalidInstanceId.NotFound", "The specified InstanceId does not exist.", 404)
        if machine.charge != charge:
            return _refused(
                "ChargeTypeViolation", "The operation is not permitted due to charge type of the instance.", 403
            )
        if machine.status != "Stopped":
            return _refused(
                "IncorrectInstanceStatus", "The current status of the resource does not support this operation.", 403
            )
        if asked["InstanceType"] not in self.types:
            return _refused(
                "InvalidInstanceType.ValueNotSupported",
                "The specified InstanceType does not exist or beyond the permitted range.",
                400,
            )
        if asked.get("DryRun") == "true":
            return _refused("DryRunOperation", "Request validation has been passed with DryRun flag set.", 400)
        if (token := asked.get("ClientToken", "")) not in self.tokens:
            self.tokens.append(token)
            machine.type = asked["InstanceType"]
            self.orders += 1
        return 200, {"RequestId": "r"} | ({"OrderId": str(20000 + self.orders)} if charge == "PrePaid" else {})

    def _ModifyInstanceSpec(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        return self._change(asked, "PostPaid")

    def _ModifyPrepayInstanceSpec(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        return self._change(asked, "PrePaid")

    def _move(self, asked: Mapping[str, str], there: str, passing: str, aim: str) -> tuple[int, Any]:
        machine = self.instances.get(asked["InstanceId"])
        if machine is None:
            return _refused("InvalidInstanceId.NotFound", "The specified InstanceId does not exist.", 404)
        if machine.status != there:
            return _refused(
                "IncorrectInstanceStatus", "The current status of the resource does not support this operation.", 403
            )
        if asked.get("DryRun") == "true":
            return _refused("DryRunOperation", "Request validation has been passed with DryRun flag set.", 400)
        machine.status, machine.towards, machine.left = passing, aim, machine.looks
        return 200, {"RequestId": "r"}

    def _StopInstance(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        return self._move(asked, "Running", "Stopping", "Stopped")

    def _StartInstance(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        return self._move(asked, "Stopped", "Starting", "Running")

    def _RunCommand(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"RequestId": "r", "CommandId": "c-1", "InvokeId": "t-1"}

    def _DescribeInvocationResults(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        machine = self.instances[asked["InstanceId"]]
        result = {
            "InvocationStatus": machine.assistant,
            "InvokeId": asked["InvokeId"],
            "InstanceId": asked["InstanceId"],
        }
        if machine.assistant == "Success":
            result |= {"Output": base64.b64encode(machine.bits.encode()).decode(), "ErrorCode": ""}
        else:
            result |= {"Output": "", "ErrorCode": "ClientNotInstalled"}
        return 200, {"RequestId": "r", "Invocation": {"InvocationResults": {"InvocationResult": [result]}}}


def _refused(code: str, message: str, status: int) -> tuple[int, dict[str, Any]]:
    """An error as the API's gateway words it."""
    return status, {
        "RequestId": "473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E",
        "HostId": "ecs.cn-hangzhou.aliyuncs.com",
        "Code": code,
        "Message": message,
        "Recommend": f"https://api.aliyun.com/troubleshoot?q={code}&product=Ecs",
    }


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing: what pytest shows is the tests' own."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        action = self.headers.get("x-acs-action", "")
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True)) | dict(parse_qsl(body.decode()))
        self.api.asked.append((action, asked))
        fault = self.api.fault(action)
        if fault is not None and fault.kind != "error":
            self._go_wrong(fault)
            return
        problem = self._credentials(body)
        if problem is not None:
            self._send(*problem)
        elif fault is not None:
            self._send(*_refused(fault.code, fault.message, fault.status))
        else:
            self._send(*self.api.answer(action, asked))

    def do_GET(self) -> None:
        """Only whoever follows a redirect comes here."""
        self.api.followed.append(dict(self.headers.items()))
        self._raw(404, b"", "text/plain")

    def _go_wrong(self, fault: Fault) -> None:
        if fault.kind == "hang":
            time.sleep(60)
        elif fault.kind == "drop":
            self.close_connection = True
        elif fault.kind == "html":
            self._raw(502, b"<html><body>Bad Gateway</body></html>", "text/html")
        elif fault.kind == "shape":
            self._raw(200, b'{"Instances": ["none"], "InstanceTypes": 7}', "application/json")
        elif fault.kind == "redirect":
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['Host']}/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault.kind == "huge":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            with_brace = b"[" + b" " * 65535
            try:
                while True:
                    self.wfile.write(with_brace)
            except OSError:
                self.close_connection = True

    def _credentials(self, body: bytes) -> tuple[int, dict[str, Any]] | None:
        """What is wrong with the key, the token or the signature; checked as the API's gateway does."""
        authorization = self.headers.get("Authorization", "")
        scheme, _, rest = authorization.partition(" ")
        parts = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != "ACS3-HMAC-SHA256" or self.headers.get("x-acs-version") != "2014-05-26":
            return _refused("MissingParameter", "The input parameter is not supplied.", 400)
        if parts.get("Credential") != KEY:
            return _refused("InvalidAccessKeyId.NotFound", "Specified access key is not found.", 404)
        if self.api.sts and self.headers.get("x-acs-security-token") != TOKEN:
            return _refused("InvalidSecurityToken.Expired", "Specified SecurityToken is expired.", 400)
        signed = parts["SignedHeaders"].split(";")
        query = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in sorted(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        )
        headers = "".join(f"{name}:{(self.headers.get(name) or '').strip()}\n" for name in signed)
        digest = hashlib.sha256(body).hexdigest()
        canonical = "\n".join(["POST", "/", query, headers, ";".join(signed), digest])
        to_sign = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
        if not hmac.compare_digest(
            hmac.new(SECRET.encode(), to_sign.encode(), hashlib.sha256).hexdigest(), parts.get("Signature", "")
        ):
            return _refused(
                "SignatureDoesNotMatch",
                f"Specified signature does not match our calculation. string to sign is:{to_sign} {KEY} {SECRET}",
                400,
            )
        return None

    def _send(self, status: int, body: Any) -> None:
        self._raw(status, json.dumps(body).encode(), "application/json;charset=utf-8")

    def _raw(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on this machine; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False  # a request that hangs on purpose is not waited for
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(api: Api) -> Iterator[str]:
    """The API, as $EJECTABLE_ECS_ENDPOINT wants it."""
    handler = type("Handler", (_Handler,), {"api": api})
    with serving(handler) as port:
        yield f"http://127.0.0.1:{port}"


def become(monkeypatch: pytest.MonkeyPatch, home: Path, url: str, *, token: str | None = None) -> None:
    """Be a user of the account, at `home`, with nothing of the real environment."""
    for name in list(os.environ):
        if name.startswith(("ALIBABA_CLOUD_", "EJECTABLE_ECS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))  # the kernels stay where they are
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EJECTABLE_ECS_ENDPOINT", url)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET)
    if token is not None:
        monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", token)


def elsewhere(folder: Path, *, offline: bool = False) -> Situation:
    """A machine that is none of Alibaba Cloud, in a folder of its own."""
    (folder / "tree").mkdir(exist_ok=True)
    return Situation(host.Root(folder / "tree"), {}, offline=offline)


@contextmanager
def one_process(folder: Path, *, patience_s: float) -> Iterator[tuple[Api, service.Ecs]]:
    """One process of the SDK for many questions: starting it is what takes time."""
    one = Api()
    with answering(one) as url, pytest.MonkeyPatch.context() as patch:
        become(patch, folder, url)
        with service.Ecs(REGION, patience_s=patience_s, pause=lambda _: None) as ecs:
            yield one, ecs
