"""AWS as SkyPilot finds it: what is asked of it, reading alone, and what follows from the answers.

SkyPilot finds a VPC by its Name tag, and takes it only if there is one (``sky/provision/aws/config.py``); what
follows from what is in it is in :mod:`haversack.skypilot.network`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from haversack.model.finding import Finding, unknown, unready
from haversack.skypilot import network, versions
from haversack.skypilot.asking import Refused, refused

POLICY = "AmazonSSMManagedInstanceCore"
OWN_PROFILE = "skypilot-v1"
"""The instance profile that SkyPilot makes where none is named."""
WORDS = ("LOCAL_CREDENTIALS", "SERVICE_ACCOUNT", "NO_UPLOAD")
"""Values of ``remote_identity`` that name no profile (``sky/templates/aws-ray.yml.j2``, ``sky/utils/schemas.py``)."""
# Amazon's own that let the agent in too, or may.
_WIDE = re.compile("SSM|Administrator|PowerUser")
ENVIRON = {"AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "2"}
"""What the ``aws`` program is told."""

Ask = Callable[..., Any]
"""``ask("ec2", "describe-vpcs", …)`` gives the JSON of the answer, or :class:`Refused`."""


def of(version: str, aws: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings as that version takes them: the older ones never use Systems Manager by themselves."""
    return {"use_ssm": False, **aws} if versions.lacking(version, ["aws.use_ssm"]) else aws


def through_ssm(aws: Mapping[str, Any]) -> bool:
    """Whether SkyPilot reaches machines through Systems Manager.

    It takes that too where they have private addresses alone, and nothing says how else they are reached
    (``sky/backends/backend_utils.py``).
    """
    implied = bool(aws.get("use_internal_ips")) and "ssh_proxy_command" not in aws
    return bool(aws.get("use_ssm", implied))


def profile(aws: Mapping[str, Any]) -> str | None:
    """The instance profile that is named for machines, ``None`` where SkyPilot makes its own."""
    name = aws.get("remote_identity")
    return None if name in WORDS else name


def look(aws: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """All answers of one region by the names of the questions; an answer may be :class:`Refused`."""
    seen: dict[str, Any] = {"vpcs": {}, "inside": {}}
    for name in [aws["vpc_name"]] if "vpc_name" in aws else aws.get("vpc_names", ()):
        # As JSON: in the short form of the program a comma begins another value.
        named = json.dumps([{"Name": "tag:Name", "Values": [name]}])
        answer = ask("ec2", "describe-vpcs", "--filters", named)
        seen["vpcs"][name] = answer
        if not isinstance(answer, Refused) and len(answer["Vpcs"]) == 1:
            seen["inside"][name] = _in_vpc(aws, answer["Vpcs"][0]["VpcId"], ask)
    own = profile(aws) or OWN_PROFILE
    seen["profile"] = ask("iam", "get-instance-profile", "--instance-profile-name", own)
    if not isinstance(seen["profile"], Refused):
        names = [role["RoleName"] for role in seen["profile"]["InstanceProfile"]["Roles"]]
        seen["policies"] = _every("AttachedPolicies", names, "list-attached-role-policies", ask)
        attached = seen["policies"]
        if not isinstance(attached, Refused) and POLICY not in [policy["PolicyName"] for policy in attached]:
            seen["inline"] = _every("PolicyNames", names, "list-role-policies", ask)
    return seen


def _every(key: str, roles: list[str], question: str, ask: Ask) -> Any:
    """What is answered of every role, in one list; :class:`Refused` where one answer is that."""
    found: list[Any] = []
    for role in roles:
        answer = ask("iam", question, "--role-name", role)
        if isinstance(answer, Refused):
            return answer
        found += answer[key]
    return found


def _in_vpc(aws: Mapping[str, Any], vpc: str, ask: Ask) -> dict[str, Any]:
    inside = ("--filters", f"Name=vpc-id,Values={vpc}")
    seen = {
        "subnets": ask("ec2", "describe-subnets", *inside),
        "routes": ask("ec2", "describe-route-tables", *inside),
        "endpoints": ask("ec2", "describe-vpc-endpoints", *inside),
        "groups": ask("ec2", "describe-security-groups", *inside),
    }
    if names := aws.get("subnet_names"):
        named = json.dumps([{"Name": "tag:Name", "Values": list(names)}])
        seen["subnets of these names"] = ask("ec2", "describe-subnets", "--filters", named)
    for flag in network.FLAGS:
        seen[flag] = ask("ec2", "describe-vpc-attribute", "--vpc-id", vpc, "--attribute", flag)
    return seen


def judge(aws: Mapping[str, Any], where: str, seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What will fail in a region, and what of it nobody could tell; pure."""
    yield from _vpcs(where, seen["vpcs"])
    if not seen["vpcs"]:
        yield unknown(
            where, "no VPC is named, so that nobody can tell which one is taken", "name it: vpc_name"
        )
    for number, (name, inside) in enumerate(seen["inside"].items()):
        at = f"{where}: {name}" if len(seen["vpcs"]) > 1 else where
        # SkyPilot goes on to the next where it could not launch in the one before.
        yield from (replace(f, blocking=f.blocking and not number) for f in _inside(at, aws, inside))
    yield from _profile(aws, seen)


def _inside(where: str, aws: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with one VPC."""
    for question, answer in seen.items():
        if isinstance(answer, Refused):
            yield refused(f"{where}: {question}", answer)
    yield from network.judge(where, aws, seen, through_ssm=through_ssm(aws))
    groups, name = seen["groups"], aws.get("security_group_name")
    known = [] if isinstance(groups, Refused) else [group["GroupName"] for group in groups["SecurityGroups"]]
    if name and known and name not in known:
        said = "is no security group of the VPC; SkyPilot makes one of this name, if it may"
        yield unready(f"{where}: {name}", said, "make it, or correct the name", blocking=False)


def _vpcs(where: str, answers: Mapping[str, Any]) -> Iterator[Finding]:
    for name, answer in answers.items():
        if isinstance(answer, Refused):
            yield refused(f"{where}: VPC {name}", answer)
        elif not (vpcs := answer["Vpcs"]):
            yield unready(
                f"{where}: VPC {name}", "there is none of this name", "correct the name, or tag the VPC"
            )
        elif len(vpcs) > 1:
            said = f"{len(vpcs)} VPCs have this name ({', '.join(vpc['VpcId'] for vpc in vpcs)}), and SkyPilot takes neither"
            yield unready(f"{where}: VPC {name}", said, "give each a name of its own")


def _profile(aws: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether machines have a role that Systems Manager takes."""
    named = profile(aws)
    subject = f"instance profile {named or OWN_PROFILE}"
    answer, policies = seen["profile"], seen.get("policies", [])
    if isinstance(answer, Refused) and "NoSuchEntity" in answer.reason:
        if named:
            yield unready(subject, "is not in this account", "make it, or correct the name")
        elif through_ssm(aws):
            said = f"is made by SkyPilot, without {POLICY}: nobody reaches its machines through SSM"
            yield unready(subject, said, "name one that has it: remote_identity")
    elif isinstance(answer, Refused) or isinstance(policies, Refused):
        yield refused(subject, answer if isinstance(answer, Refused) else policies)
    elif through_ssm(aws) and POLICY not in [policy["PolicyName"] for policy in policies]:
        yield from _other_policies(subject, policies, seen.get("inline", []))


def _other_policies(subject: str, attached: list[Any], inline: Any) -> Iterator[Finding]:
    """Rights that a role has by other policies than Systems Manager's own.

    Which those give nobody reads here: an account may well write its own.
    """
    own = [
        policy["PolicyName"]
        for policy in attached
        if ":aws:policy/" not in policy["PolicyArn"] or _WIDE.search(policy["PolicyName"])
    ]
    if isinstance(inline, Refused):
        yield refused(f"{subject}: policies of its own", inline)
    elif names := sorted([*own, *inline]):
        said = f"has not {POLICY}, and whether its other policies ({', '.join(names)}) let Systems Manager in is not known"
        remedy = "see that they allow ssm:UpdateInstanceInformation and ssmmessages:*, or attach that policy"
        yield unknown(subject, said, remedy)
    else:
        said = f"has no role with {POLICY}: nobody reaches its machines through SSM"
        yield unready(subject, said, "attach that policy, or name another: remote_identity")
