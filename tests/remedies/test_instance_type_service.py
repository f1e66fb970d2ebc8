# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that runs the SDK: what it is given, whom it trusts, and how it ends."""

import datetime as dt
import ipaddress
import os
import re
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ejectable.errors import Denied, Missing, WrongUsage
from ejectable.remedies.ecs import aliyun_cli, proof, service
from ejectable.remedies.ecs.answers import Done, Instances
from ejectable.remedies.ecs.refusals import Refusal
from ejectable.remedies.ecs.service import Ecs, credentials_likely
from tests.remedies.ecs_server import INSTANCE, REGION, Api, Fault, answering, become


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    one = Api()
    with answering(one) as url:
        become(monkeypatch, tmp_path / "home", url)
        yield one


def certificate(folder: Path) -> Path:
    """A certificate for this machine that nobody has signed but itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_server_whose_certificate_nobody_trusts_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.path)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Shake hands in the request's own thread, where a client that hangs up disturbs nobody.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    monkeypatch.setattr(server, "handle_error", lambda *_: None)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    become(monkeypatch, tmp_path / "home", f"localhost:{server.server_address[1]}")
    try:
        with Ecs(REGION, patience_s=0) as ecs, pytest.raises(Missing, match="certificate of the API's server"):
            ecs.ask("DescribeInstances", Instances, InstanceIds="[]")
    finally:
        server.shutdown()
        server.server_close()
    assert not heard


@pytest.mark.parametrize(
    "text",
    ["http://ecs.aliyuncs.com", "ftp://x", "http://127.0.0.1@evil.example", "a b", "http://localhost.evil.example"],
)
def test_an_endpoint_in_the_clear_is_for_this_machine_only(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EJECTABLE_ECS_ENDPOINT", text)
    with pytest.raises(WrongUsage, match="expected a host name") as caught:
        Ecs(REGION, patience_s=0)
    assert caught.value.hint == f"Inside a VPC it is `ecs-vpc.{REGION}.aliyuncs.com`."


@pytest.mark.parametrize("here", [True, False])
def test_the_metadata_address_is_asked_for_a_role_on_ecs_only(here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", raising=False)
    monkeypatch.setenv("DEBUG", "sdk")
    monkeypatch.setattr(service, "on_ecs", lambda: here)
    environment = Ecs(REGION, patience_s=0)._environment
    assert (environment.get("ALIBABA_CLOUD_ECS_METADATA_DISABLED") == "true") is not here
    assert "DEBUG" not in environment


@pytest.mark.skipif(os.geteuid() != 0, reason="what others could make root do is shown as root")
def test_as_root_the_credentials_of_a_home_that_others_may_write_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "x.so"))
    environment = Ecs(REGION, patience_s=0)._environment
    assert environment["HOME"] == str(tmp_path)
    assert not {"PYTHONPATH", "LD_PRELOAD"} & set(environment)
    os.chown(tmp_path, 65534, 65534)
    assert Ecs(REGION, patience_s=0)._environment["HOME"] == "/root"


def test_whether_there_may_be_credentials_is_seen_without_reading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, tmp_path, "localhost")
    assert credentials_likely(role=False)
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID")
    assert not credentials_likely(role=False)
    assert credentials_likely(role=True)
    monkeypatch.setenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")
    assert not credentials_likely(role=True)
    (tmp_path / ".aliyun").mkdir()
    (tmp_path / ".aliyun/config.json").write_text("{}")
    (tmp_path / ".aliyun/config.json").chmod(0)
    assert credentials_likely(role=False)


def test_only_what_is_needed_can_be_asked_for(api: Api) -> None:
    with Ecs(REGION, patience_s=0) as ecs, pytest.raises(Missing):
        ecs.ask("DeleteInstance", Done, InstanceId=INSTANCE)
    assert not api.asked


def test_a_write_that_got_no_answer_is_not_repeated_unless_it_is_safe(api: Api) -> None:
    with Ecs(REGION, patience_s=5, pause=lambda _: None) as ecs:
        api.faults = [Fault("StopInstance", kind="drop")]
        with pytest.raises(Missing, match="could not be reached"):
            ecs.ask("StopInstance", Done, InstanceId=INSTANCE)
        assert api.actions() == ["StopInstance"]
        api.asked.clear()
        api.faults = [Fault("ModifyInstanceSpec", kind="drop")]
        answer = ecs.try_to("ModifyInstanceSpec", Done, InstanceId=INSTANCE, InstanceType="x", ClientToken="t")
        assert isinstance(answer, Refusal)
        assert api.actions() == ["ModifyInstanceSpec"] * 2, "the token makes it safe"


def test_the_pauses_grow_and_are_never_alike(api: Api) -> None:
    api.faults = [Fault("DescribeInstances", "Throttling", times=4)]
    pauses: list[float] = []
    with Ecs(REGION, patience_s=60, pause=pauses.append) as ecs:
        ecs.ask("DescribeInstances", Instances, InstanceIds="[]")
    assert len(pauses) == 4
    for pause, middle in zip(pauses, (1, 2, 4, 8), strict=True):
        assert middle * 0.75 <= pause <= middle * 1.25


def test_the_process_ends_with_whoever_asks(api: Api) -> None:
    ecs = Ecs(REGION, patience_s=0)
    with ecs:
        process = ecs._process
        assert process is not None
        assert process.poll() is None
    assert process.poll() is not None


@pytest.mark.parametrize(
    "line", [b"", b"not json\n", b"[1]\n", b'{"body": 1}\n', b'{"refused": {}}\n', b"[" * 99999 + b"\n"]
)
def test_whatever_the_process_says_is_an_error_of_ours(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, tmp_path, "localhost")
    ecs = Ecs(REGION, patience_s=0)
    code = f"import sys; sys.stdin.readline(); sys.stdout.buffer.write({line!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        ecs._process = process
        with pytest.raises(Missing):
            ecs.ask("DescribeInstances", Instances, InstanceIds="[]")


@pytest.mark.parametrize(
    "line",
    [
        aliyun_cli.on_offer(REGION, INSTANCE),
        *aliyun_cli.stop(REGION, INSTANCE),
        *aliyun_cli.start(REGION, INSTANCE),
        aliyun_cli.dry_run(REGION, INSTANCE, "ecs.g8i.large", across=True),
        aliyun_cli.change_type(REGION, INSTANCE, "ecs.g8i.large", subscription=True, across=True),
        aliyun_cli.disks(REGION, INSTANCE),
        aliyun_cli.nics(REGION, INSTANCE),
        aliyun_cli.detach_disk(REGION, INSTANCE, "d-bp1ejectable00000000"),
        aliyun_cli.detach_nic(REGION, INSTANCE, "eni-bp1ejectable00000000"),
    ],
    ids=lambda line: shlex.split(line)[2],
)
def test_every_command_names_an_action_and_parameters_that_the_api_has(line: str) -> None:
    from alibabacloud_ecs20140526 import models

    program, product, action, *words = shlex.split(line)
    assert (program, product) == ("aliyun", "ecs")
    if "--waiter" in words:
        waiter = words[words.index("--waiter") + 1 :]
        words = words[: words.index("--waiter")]
        assert [word.partition("=")[0] for word in waiter] == ["expr", "to", "timeout", "interval"]
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given.pop("--region") == REGION, "the tool's own option: whose server is asked"
    asked = {name.removeprefix("--"): value for name, value in given.items()}
    kept = getattr(models, f"{action}Request")().from_map(asked).to_map()  # what the API does not know is dropped
    assert {name: value for name, value in kept.items() if value} == asked


@given(
    st.lists(
        st.one_of(
            st.from_regex(r"virtio[0-9]{1,3} [01] (bound|unbound)", fullmatch=True),
            st.sampled_from(["", "virtio1", "virtio1 1", "virtio1 2 bound", "cut: /sys/x: No such file", "virtio* "]),
            st.text(max_size=20),
        ),
        max_size=6,
    )
)
def test_nothing_but_bit_32_of_every_device_is_called_modern(lines: list[str]) -> None:
    text = "\n".join(lines)
    seen = [re.fullmatch(r"virtio\d+ 1 (?:bound|unbound)", line) for line in text.splitlines()]
    assert proof.judged(text).word != "modern" or (seen and all(seen))
    if seen and all(seen):
        assert proof.judged(text).word == "modern"


@pytest.mark.parametrize("name", ["ALIBABA_CLOUD_CREDENTIALS_FILE", "ALIBABA_CLOUD_OIDC_TOKEN_FILE"])
def test_a_file_of_credentials_that_others_may_write_is_not_read_and_its_content_not_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It says who asks, and may name a program that is run for the answer."""
    secret = "LTAI0123456789SECRET"
    path = tmp_path / "credentials.ini"
    monkeypatch.setenv(name, str(path))
    with pytest.raises(Missing, match="cannot be looked at"):
        Ecs(REGION, patience_s=0)
    path.write_text(secret)
    path.chmod(0o600)
    assert Ecs(REGION, patience_s=0)._environment[name] == str(path)
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(Denied, match="others may write") as caught:
            Ecs(REGION, patience_s=0)
        assert secret not in f"{caught.value} {caught.value.hint}"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Denied, match="it is no file"):
        Ecs(REGION, patience_s=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="what others could make root do is shown as root")
def test_a_file_of_credentials_of_another_user_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials.ini"
    path.write_text("x")
    monkeypatch.setenv("ALIBABA_CLOUD_CREDENTIALS_FILE", str(path))
    os.chown(path, 1234, 1234)
    with pytest.raises(Denied, match="belongs to user 1234"):
        Ecs(REGION, patience_s=0)
    os.chown(path, 0, 0)
    os.chown(tmp_path, 1234, 1234)
    with pytest.raises(Denied, match="belongs to user 1234"):
        Ecs(REGION, patience_s=0)
    monkeypatch.delenv("ALIBABA_CLOUD_CREDENTIALS_FILE")
    os.chown(tmp_path, 0, 0)
    (tmp_path / ".aliyun").mkdir()
    (tmp_path / ".aliyun/config.json").touch()
    os.chown(tmp_path / ".aliyun", 1234, 1234)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Ecs(REGION, patience_s=0)._environment["HOME"] == "/root"
