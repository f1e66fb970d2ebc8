# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API refuses and how it breaks: one sentence, the way out, and the instance as it was before."""

import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from ejectable import host
from ejectable.errors import EjectableError, Missing, WrongUsage
from ejectable.remedies import Request, execute, instance_type
from ejectable.remedies.ecs import answers, refusals, service
from ejectable.remedies.steps import ChangeInstanceType, StartInstance, StopInstance, System
from tests.remedies.ecs_server import INSTANCE, KEY, REGION, SECRET, TOKEN, Api, Fault, Machine, elsewhere, one_process

REQUEST = Request(instance=INSTANCE, region=REGION)
SECRETS = (KEY, SECRET, TOKEN)


@pytest.fixture
def api(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(service, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(instance_type, "APPLY_PATIENCE_S", 0.5)
    return api


def refused(tmp_path: Path, request: Request = REQUEST) -> EjectableError:
    """The error of `--apply`; there is one, and it is of ours."""
    with pytest.raises(EjectableError) as caught:
        execute.apply(elsewhere(tmp_path), "instance-type", request)
    told = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in SECRETS if secret in told]
    return caught.value


def whole(error: EjectableError) -> str:
    return f"{error.message} {error.hint}"


def test_throttling_is_waited_out(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_type, "APPLY_PATIENCE_S", 60.0)
    api.faults = [Fault("*", "Throttling.User", "Request was denied due to user flow control.", times=2)]
    assert execute.apply(elsewhere(tmp_path), "instance-type", REQUEST).verified


def test_throttling_without_end_is_given_up_and_nothing_was_done(api: Api, tmp_path: Path) -> None:
    api.faults = [Fault("StopInstance", "Throttling.Api", "Request was denied due to api flow control.", times=999)]
    error = refused(tmp_path)
    assert error.exit_code == 69
    assert "ECS refuses StopInstance: too many requests were made. It says Throttling.Api" in error.message
    assert "ModifyInstanceSpec" not in api.actions()
    assert api.instances[INSTANCE] == Machine()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, service.Ecs]]:
    with one_process(tmp_path_factory.mktemp("home"), patience_s=0.2) as both:
        yield both


@pytest.mark.parametrize(
    ("fault", "says", "code"),
    [
        (Fault("", "Forbidden.RAM", status=403), "Grant them `ecs:StopInstance` in RAM", 69),
        (Fault("", "InstanceLockedForSecurity", status=403), "locked for security reasons", 69),
        (Fault("", "OperationDenied.NoStock", status=403), "none of that type in stock", 69),
        (Fault("", "InvalidInstanceType.ValueNotSupported"), "another one with --to", 69),
        (Fault("", "OperationDenied", status=403), "this instance does not allow it", 69),
        (Fault("", "IncorrectInstanceStatus", status=403), "in a state that does not allow it", 69),
        (Fault("", "Account.Arrearage"), "the account cannot pay", 69),
        (Fault("", "InvalidRegionId.NotFound", status=404), "Check --region", 64),
        (Fault("", "IllegalTimestamp"), "the clock of this machine is wrong", 69),
        (Fault("", "Some.NewCode", "An\x1b[31m odd"), "It says Some.NewCode (An [31m odd)", 69),
        (Fault("", "ServiceUnavailable", status=503), "a fault of its own", 69),
        (Fault("", kind="html"), "an answer that is not one", 69),
        (Fault("", kind="shape"), "an answer that is not one", 69),
        (Fault("", kind="huge"), "too large", 69),
        (Fault("", kind="redirect"), "sent us elsewhere", 69),
        (Fault("", kind="drop"), "could not be reached", 69),
    ],
    ids=lambda value: value.code or value.kind if isinstance(value, Fault) else None,
)
def test_a_refusal_is_one_sentence_with_the_way_out(
    fault: Fault, says: str, code: int, session: tuple[Api, service.Ecs]
) -> None:
    api, ecs = session
    api.faults = [msgspec.structs.replace(fault, action="*", times=99)]
    with pytest.raises(EjectableError) as caught:
        ecs.ask("StopInstance", answers.Instances, InstanceId=INSTANCE)
    assert says in whole(caught.value)
    assert caught.value.exit_code == code
    assert "\x1b" not in whole(caught.value)
    assert not api.followed, "the signed headers go nowhere else"
    api.faults = []
    api.asked.clear()
    ecs.ask("DescribeInstances", answers.Instances, InstanceIds="[]")
    assert api.actions() == ["DescribeInstances"], "the next question is answered, at once"


@pytest.mark.parametrize("action", ["DescribeInstances", "StopInstance", "ModifyInstanceSpec"])
def test_a_refusal_before_anything_was_done_leaves_the_instance_alone(action: str, api: Api, tmp_path: Path) -> None:
    api.faults = [Fault(action, "Forbidden.RAM", status=403, times=9)]
    assert f"Grant them `ecs:{action}`" in whole(refused(tmp_path))
    assert api.instances[INSTANCE] == Machine()


def test_no_answer_is_given_up(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ANSWER_S", 2.5)
    api.faults = [Fault("DescribeResourcesModification", kind="hang", times=99)]
    error = refused(tmp_path)
    assert "did not answer in time" in error.message
    assert api.instances[INSTANCE] == Machine()


def test_an_instance_that_is_not_there(api: Api, tmp_path: Path) -> None:
    error = refused(tmp_path, Request(instance="i-other000", region=REGION))
    assert isinstance(error, WrongUsage)
    assert "There is no instance i-other000 in cn-hangzhou" in error.message


@pytest.mark.parametrize(
    "request_",
    [Request(instance="web-1", region=REGION), Request(instance=INSTANCE, region="x;y"), Request(instance=INSTANCE)],
    ids=["instance", "region", "no region"],
)
def test_what_cannot_be_asked_for(request_: Request, api: Api, tmp_path: Path) -> None:
    assert refused(tmp_path, request_).exit_code == 64
    assert not api.asked


def test_keys_that_are_wrong_are_not_quoted_though_the_api_does(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", f"{SECRET}x")
    error = refused(tmp_path)
    assert "the credentials are not accepted. It says SignatureDoesNotMatch." in error.message
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI5tSomebodyElse00000")
    assert "InvalidAccessKeyId.NotFound" in refused(tmp_path).message


def test_words_that_look_like_keys_are_left_out() -> None:
    told = refusals.Refusal("X", "Odd", f"user LTAI5tSomebodyElse00000 with {TOKEN} and i-bp67acfmxazb4p0abcde", 400)
    assert told.quoted == "user (left out) with (left out) and i-bp67acfmxazb4p0abcde"


def test_no_credentials_and_no_sdk(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID")
    error = refused(tmp_path)
    assert "No credentials for Alibaba Cloud were found." in error.message
    assert "aliyun configure" in (error.hint or "")
    monkeypatch.setattr(instance_type, "installed", lambda: False)
    assert refused(tmp_path).hint == "pip install 'ejectable[cloud]'"
    assert not api.asked


def test_offline_it_is_not_done(api: Api, tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="--offline forbids it"):
        execute.apply(elsewhere(tmp_path, offline=True), "instance-type", REQUEST)
    assert not api.asked


@pytest.mark.parametrize("code", ["OperationDenied.NoStock", "InvalidInstanceType.ValueNotSupported"])
def test_a_refusal_once_it_is_stopped_starts_it_again(code: str, api: Api, tmp_path: Path) -> None:
    # The first dry run is answered while it runs, the second one once it is stopped, the third time it is meant.
    api.faults = [Fault("ModifyInstanceSpec", code, status=403, skip=2)]
    error = refused(tmp_path)
    assert f"It says {code}" in error.message
    assert "What was done was undone:" in whole(error)
    assert f"Undone: stopped {INSTANCE}." in whole(error)
    assert (api.instances[INSTANCE].type, api.instances[INSTANCE].status) == ("ecs.g7.large", "Running")
    with pytest.raises(WrongUsage, match="nothing to undo"):
        execute.undo(elsewhere(tmp_path), "instance-type", Request())


def test_what_the_dry_run_refuses_once_it_is_stopped_is_not_tried(api: Api, tmp_path: Path) -> None:
    api.faults = [Fault("ModifyInstanceSpec", "OperationDenied.NoStock", status=403, skip=1)]
    refused(tmp_path)
    assert api.actions().count("ModifyInstanceSpec") == 2
    assert api.instances[INSTANCE].status == "Running"


def test_a_dry_run_that_is_carried_out_instead_is_noticed(api: Api, tmp_path: Path) -> None:
    api.faults = [Fault("StopInstance", "", status=200, message="")]
    error = refused(tmp_path)
    assert "did not answer the dry run as it documents" in error.message
    assert "ModifyInstanceSpec" not in api.actions()


def test_a_new_type_that_does_not_start_is_changed_back(api: Api, tmp_path: Path) -> None:
    api.faults = [Fault("StartInstance", "OperationDenied.NoStock", status=403)]
    error = refused(tmp_path)
    assert "ECS refuses StartInstance: the zone has none of that type in stock." in error.message
    assert (api.instances[INSTANCE].type, api.instances[INSTANCE].status) == ("ecs.g7.large", "Running")


def test_a_token_that_expires_half_way_says_what_is_left_and_how_to_go_on(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", TOKEN)
    api.faults = [
        Fault("ModifyInstanceSpec", "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.", skip=2),
        Fault("StartInstance", "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.", times=99),
    ]
    error = refused(tmp_path)
    assert "temporary credentials (STS) have expired" in error.message
    assert "It may be left stopped: aliyun ecs StartInstance" in whole(error)
    assert api.instances[INSTANCE].status == "Stopped"


def test_ctrl_c_while_it_stops_starts_it_again(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.instances[INSTANCE].looks = 2

    def interrupted(seconds: float) -> None:
        del seconds
        api.instances[INSTANCE].looks = api.instances[INSTANCE].left = 0
        raise KeyboardInterrupt

    one = instance_type.InstanceType(pause=interrupted)
    monkeypatch.setattr(execute, "remediation", lambda name: one)
    with pytest.raises(KeyboardInterrupt):
        execute.apply(elsewhere(tmp_path), "instance-type", REQUEST)
    assert api.instances[INSTANCE].status == "Running"
    assert api.actions().count("StartInstance") == 1


def command(*words: str, tree: Path) -> list[str]:
    where = ["--instance", INSTANCE, "--region", REGION, "--root", str(tree), "--no-cache"]
    return [sys.executable, "-m", "ejectable", "fix", "instance-type", *where, *words]


def test_killed_between_its_steps_the_next_run_starts_it_again(api: Api, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    api.faults = [Fault("ModifyInstanceSpec", kind="hang", skip=2, times=9)]
    with subprocess.Popen(command("--apply", tree=tmp_path / "tree"), stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while api.actions().count("ModifyInstanceSpec") < 3:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert api.instances[INSTANCE].status == "Stopped"
    api.faults = []
    undone = subprocess.run(command("--undo", tree=tmp_path / "tree"), capture_output=True, text=True, check=False)
    assert undone.returncode == 0, undone.stderr
    assert f"Undone: stopped {INSTANCE}." in undone.stdout
    assert (api.instances[INSTANCE].type, api.instances[INSTANCE].status) == ("ecs.g7.large", "Running")


@pytest.mark.parametrize("words", [(), ("--apply",), ("--apply", "--debug"), ("--apply", "--format", "json")])
def test_no_secret_is_printed_whatever_is_asked_for(
    words: tuple[str, ...], api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", TOKEN)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", f"{SECRET}x")
    monkeypatch.setenv("DEBUG", "sdk")  # the SDK prints its headers then, the session's token among them
    done = subprocess.run(command(*words, tree=tmp_path / "tree"), capture_output=True, text=True, check=False)
    assert api.asked
    said = done.stdout + done.stderr
    assert "SignatureDoesNotMatch" in said
    assert not [secret for secret in (*SECRETS, "x-acs-security-token", "Authorization") if secret in said]
    if "--apply" in words:
        assert done.returncode == 69
        assert "Traceback" not in said or "--debug" in words


@pytest.mark.parametrize(
    ("step", "says", "does"),
    [
        (StopInstance(REGION, INSTANCE), "", []),
        (StartInstance(REGION, INSTANCE), "", ["StopInstance"]),
        (ChangeInstanceType(REGION, INSTANCE, "ecs.g7.large", "ecs.g8i.large"), "", []),
        (ChangeInstanceType(REGION, INSTANCE, "ecs.g8i.large", "ecs.g7.large"), "while it is Stopped", []),
        (ChangeInstanceType(REGION, INSTANCE, "ecs.g8i.large", "ecs.g7.large", started_later=True), "", []),
    ],
)
def test_what_is_so_already_is_left_alone_when_it_is_undone(step: System, says: str, does: list[str], api: Api) -> None:
    with pytest.raises(Missing, match=says) if says else nullcontext():
        step.undo(host.Root())
    assert [action for action in api.actions() if not action.startswith("Describe")] == does


def test_every_meaning_has_a_way_out() -> None:
    seen: list[str] = []
    for meaning in refusals.MEANINGS:
        for code in meaning.codes:
            error = refusals.as_error(refusals.Refusal("StopInstance", code, "", 400))
            assert meaning.says in error.message, f"{code} is hidden by an earlier one"
            assert error.hint
            assert isinstance(error, WrongUsage if meaning.usage else Missing)
        seen += meaning.codes
    assert len(seen) == len(set(seen))
    assert not [text for text, hint in refusals.FAILURES.values() if not re.search(r"[.]$", text) or not hint]
