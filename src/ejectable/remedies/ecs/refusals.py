# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API of ECS refuses, in one sentence each, with the way out.

Codes: Alibaba Cloud, "Common error codes" of ECS, and those of ModifyInstanceSpec, ModifyPrepayInstanceSpec,
DescribeResourcesModification, StopInstance and StartInstance.
"""

import re

import msgspec

from ejectable.errors import EjectableError, Missing, WrongUsage

__all__ = ["DRY_RUN", "Refusal", "as_error", "failure"]

DRY_RUN = "DryRunOperation"  # the answer to DryRun=true where the request would be carried out
MAX_MESSAGE = 200
UNDER_WAY = ("LastOrderProcessing", "LastRequestProcessing", "LastTokenProcessing", "OperationConflict", "TaskConflict")
FAULTS = ("ServiceUnavailable", "InternalError", "RequestTimeout", "ServiceTimeout")


class Meaning(msgspec.Struct, frozen=True):
    """What codes that begin with one of `codes` mean here, and the way out; `usage`: the command line is to blame."""

    codes: tuple[str, ...]
    says: str
    way_out: str
    usage: bool = False


# The first one that fits counts.
MEANINGS = (
    Meaning(("Throttling",), "too many requests were made", "Wait some minutes, then try again."),
    Meaning(
        ("InvalidSecurityToken.Expired", "SecurityTokenExpired", "InvalidSecurityToken.MismatchWithAccessKey"),
        "the temporary credentials (STS) have expired, or do not belong together",
        "Get new ones, then try again.",
    ),
    Meaning(
        (
            "InvalidAccessKeyId",
            "InvalidAccessKeySecret",
            "InvalidSecurityToken",
            "MissingSecurityToken",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "Forbidden.AccessKeyDisabled",
        ),
        "the credentials are not accepted",
        "Check the ones that the SDK finds first: variables ALIBABA_CLOUD_*, ~/.aliyun/config.json, the role.",
    ),
    Meaning(
        ("IllegalTimestamp", "InvalidTimeStamp"),
        "the clock of this machine is wrong, and requests are signed with the time",
        "Set it.",
    ),
    Meaning(
        ("Forbidden", "NoPermission", "UnauthorizedOperation"),
        "these credentials have no right to do that",
        "Grant them `ecs:{action}` in RAM, or use others.",
    ),
    Meaning(
        ("InvalidInstanceId", "InvalidResourceId", "Invalid.ResourceId", "InvalidInstance.NotFound"),
        "there is no such instance in this region and account",
        "Check --instance and --region.",
        usage=True,
    ),
    Meaning(
        ("InvalidRegionId", "Invalid.RegionId", "Unavailable.Regions"),
        "there is no such region",
        "Check --region.",
        usage=True,
    ),
    Meaning(
        ("IncorrectInstanceStatus", "InvalidStatus", "InvalidInstanceStatus", "IncorrectInstanceState"),
        "the instance is in a state that does not allow it",
        "Wait until it is Running or Stopped, then try again.",
    ),
    Meaning(
        (
            "OperationDenied.NoStock",
            "OperationDenied.ZoneNotAllowed",
            "InvalidResourceType.NotSupported",
            "InvalidInstanceType.ZoneNotSupported",
            "ResourceNotAvailable",
            "Zone.NotOnSale",
        ),
        "the zone has none of that type in stock",
        "Give another type with --to, or try again later.",
    ),
    Meaning(
        ("InvalidInstanceType", "DependencyViolation.InstanceType", "InstanceType.Offline", "Downgrade.NotSupported"),
        "the instance may not be changed to that type",
        "Give another one with --to: `ejectable fix instance-type` lists them.",
    ),
    Meaning(
        (
            "Account.Arrearage",
            "InvalidAccountStatus",
            "InsufficientBalance",
            "InstanceExpiredOrInArrears",
            "InvalidInstance.UnPaidOrder",
            "OrderCreationFailed",
            "RealNameAuthenticationError",
        ),
        "the account cannot pay for it, or has an order open",
        "Settle it in the console, then try again.",
    ),
    Meaning(("InstanceLocked",), "the instance is locked for security reasons", "Ask Alibaba Cloud to unlock it."),
    Meaning(
        UNDER_WAY,
        "an earlier change of the instance is still under way",
        "Wait some minutes, then try again.",
    ),
    Meaning(("ChargeTypeViolation",), "the way the instance is paid for does not allow it", "Use the console."),
    Meaning(
        ("OperationDenied", "CategoryViolation", "InvalidAction.NotSupport", "InvalidOperation"),
        "this instance does not allow it",
        "Another remedy is needed: `ejectable fix` shows them.",
    ),
    Meaning(
        FAULTS,
        "the API has a fault of its own",
        "Try again later.",
    ),
)
# Beginnings of codes of which the message may quote the request that was signed.
SIGNED = ("Signature", "InvalidAccessKey", "InvalidSecurityToken", "IncompleteSignature", "SecurityToken")
# Whatever looks like a key, a token or a hash; ids and names of types are shorter.
SECRET = re.compile(r"\b(?:LTAI|STS\.|CAIS)[\w+/=.-]+|[A-Za-z0-9+/=_%-]{33,}")


class Refusal(msgspec.Struct, frozen=True):
    """The API said no: `code` and `message` are its own, `status` is HTTP's."""

    action: str
    code: str
    message: str
    status: int | None

    @property
    def untouched(self) -> bool:
        """Too many requests, or an earlier one is under way: nothing was done, and waiting helps."""
        return self.code.startswith(("Throttling", *UNDER_WAY)) or self.status == 429

    @property
    def passing(self) -> bool:
        """Waiting may help."""
        return self.untouched or self.code.startswith(FAULTS) or (self.status or 0) >= 500

    def means(self, *beginnings: str) -> bool:
        """Whether the code begins with one of these."""
        return self.code.startswith(beginnings)

    @property
    def quoted(self) -> str:
        """The API's own words, short, printable, with nothing in them that looks like a secret."""
        if self.code.startswith(SIGNED):
            return ""
        plain = "".join(letter if letter.isprintable() else " " for letter in self.message)
        return SECRET.sub("(left out)", plain)[:MAX_MESSAGE].strip().rstrip(".")


def as_error(refusal: Refusal) -> EjectableError:
    """The error to raise: what was asked, what it means, what the API said, the way out."""
    code = "".join(letter for letter in refusal.code if letter.isalnum() or letter in "._-")[:80] or "no code"
    words = f" ({refusal.quoted})" if refusal.quoted else ""
    for meaning in MEANINGS:
        if refusal.means(*meaning.codes):
            text = f"ECS refuses {refusal.action}: {meaning.says}. It says {code}{words}."
            hint = meaning.way_out.format(action=refusal.action)
            return WrongUsage(text, hint=hint) if meaning.usage else Missing(text, hint=hint)
    return Missing(
        f"ECS refuses {refusal.action}. It says {code}{words}.",
        hint="https://api.alibabacloud.com/document/Ecs/2014-05-26/errorCode explains the code.",
    )


FAILURES: dict[str, tuple[str, str]] = {
    "no-sdk": (
        "The SDK of Alibaba Cloud is not installed.",
        "pip install 'ejectable[cloud]'",
    ),
    "no-sdk-answer": (
        "The process that runs the SDK of Alibaba Cloud ended early.",
        "Reinstall it: pip install --force-reinstall 'ejectable[cloud]'",
    ),
    "no-credentials": (
        "No credentials for Alibaba Cloud were found.",
        "Give ALIBABA_CLOUD_ACCESS_KEY_ID and ..._SECRET, run `aliyun configure`, or give the instance a RAM role.",
    ),
    "too-large": ("The API of ECS gave an answer that is too large to be one.", "Is there a proxy in between?"),
    "redirected": ("The API of ECS sent us elsewhere, which it never does.", "Is there a proxy in between?"),
    "timed-out": ("The API of ECS did not answer in time.", "Try again, or set EJECTABLE_ECS_ENDPOINT."),
    "no-name": ("The name of the API's server could not be resolved.", "Check the network, and --region."),
    "tls": ("The certificate of the API's server is not trusted.", "Is there a proxy in between?"),
    "no-connection": (
        "The API of ECS could not be reached.",
        "Check the network; inside a VPC without internet: EJECTABLE_ECS_ENDPOINT=ecs-vpc.{region}.aliyuncs.com",
    ),
    "no-sense": ("The API of ECS gave an answer that is not one.", "Is there a proxy in between?"),
}


def failure(kind: str, region: str) -> Missing:
    """The error for no answer at all."""
    text, hint = FAILURES.get(kind, FAILURES["no-sense"])
    return Missing(text, hint=hint.format(region=region))
