"""AWS as SkyPilot finds it: what is asked of it, reading alone, and what follows from the answers.

SkyPilot finds a VPC by its Name tag, and takes it only if there is one (``sky/provision/aws/config.py``); with
internal addresses alone it takes subnets that give no public address and have no way to an internet gateway.
Systems Manager then needs a way of its own: a NAT, or endpoints in the VPC (AWS Systems Manager user guide,
"Improve the security of EC2 instances by using VPC endpoints").
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from haversack.model.finding import Finding, unknown, unready
from haversack.skypilot import versions
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
# Without the first two nobody gets in; the machine and SkyPilot's own calls want the others now and then.
_MUST, _MAY = ("ssm", "ssmmessages"), ("ec2", "ec2messages", "sts", "s3")

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
    seen: dict[str, Any] = {"vpcs": {}}
    names = [aws["vpc_name"]] if "vpc_name" in aws else list(aws.get("vpc_names", ()))
    found = []
    for name in names:
        # As JSON: in the short form of the program a comma begins another value.
        named = json.dumps([{"Name": "tag:Name", "Values": [name]}])
        answer = ask("ec2", "describe-vpcs", "--filters", named)
        seen["vpcs"][name] = answer
        if not isinstance(answer, Refused) and len(answer["Vpcs"]) == 1:
            found.append(answer["Vpcs"][0]["VpcId"])
    if found:
        seen |= _in_vpc(aws, found[0], ask)
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
    for flag in ("enableDnsSupport", "enableDnsHostnames"):
        seen[flag] = ask("ec2", "describe-vpc-attribute", "--vpc-id", vpc, "--attribute", flag)
    return seen


def judge(aws: Mapping[str, Any], where: str, seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What will fail in a region, and what of it nobody could tell; pure."""
    yield from _vpcs(where, seen["vpcs"])
    if not seen["vpcs"]:
        yield unknown(
            where, "no VPC is named, so that nobody can tell which one is taken", "name it: vpc_name"
        )
    for question in ("subnets", "routes", "endpoints", "groups", "enableDnsSupport", "enableDnsHostnames"):
        if isinstance(seen.get(question), Refused):
            yield refused(f"{where}: {question}", seen[question])
    tables = seen.get("routes", Refused(""))
    subnets = seen.get("subnets", Refused(""))
    if not isinstance(tables, Refused) and not isinstance(subnets, Refused):
        yield from _network(aws, where, seen, subnets["Subnets"], tables["RouteTables"])
    groups = seen.get("groups", Refused(""))
    name = aws.get("security_group_name")
    known = [] if isinstance(groups, Refused) else [group["GroupName"] for group in groups["SecurityGroups"]]
    if name and known and name not in known:
        said = "is no security group of the VPC; SkyPilot makes one of this name, if it may"
        yield unready(f"{where}: {name}", said, "make it, or correct the name", blocking=False)
    yield from _profile(aws, seen)


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


def _network(
    aws: Mapping[str, Any], where: str, seen: Mapping[str, Any], subnets: list[Any], tables: list[Any]
) -> Iterator[Finding]:
    """Subnets, and the way from them to Systems Manager."""
    wanted = aws.get("subnet_names")
    for name in wanted or ():
        if name not in map(_name_of, subnets):
            yield unready(
                f"{where}: subnet {name}", "is not in the VPC", "correct the name, or tag the subnet"
            )
    usable = [s for s in subnets if s["State"] == "available" and (not wanted or _name_of(s) in wanted)]
    if aws.get("use_internal_ips"):
        # Any route to such a gateway counts for SkyPilot.
        public = {s["SubnetId"] for s in usable if s["MapPublicIpOnLaunch"] or "igw" in _ways(s, tables)}
        usable = [s for s in usable if s["SubnetId"] not in public]
        if not usable:
            said = "has no subnet that gives no public address and has no way to an internet gateway"
            yield unready(f"{where}: VPC", said, "add a private subnet, or leave use_internal_ips out")
    if not through_ssm(aws) or isinstance(seen.get("endpoints", Refused("")), Refused):
        return
    closed = []
    for subnet in usable:
        out = {way for way, routes in _ways(subnet, tables).items() if _is_everything(routes)}
        if not out & {"nat", "igw"}:
            closed.append(subnet)
    if closed:
        yield from _endpoints(aws, where, seen, closed, tables)


def _ways(subnet: Mapping[str, Any], tables: list[Any]) -> dict[str, list[Any]]:
    """By what a subnet's traffic may leave the VPC (``igw``, ``nat``, ``tgw``, …), with the routes that do so."""
    own = [t for t in tables if any(a.get("SubnetId") == subnet["SubnetId"] for a in t["Associations"])]
    main = [t for t in tables if any(a.get("Main") for a in t["Associations"])]
    keys = (
        *("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "VpcPeeringConnectionId"),
        *("LocalGatewayId", "CarrierGatewayId", "CoreNetworkArn", "EgressOnlyInternetGatewayId"),
    )
    found: dict[str, list[Any]] = {}
    for table in own or main:
        for route in table["Routes"]:
            for way in (str(route[key]).partition("-")[0] for key in keys if route.get(key)):
                found.setdefault(way, []).append(route)
    return found


def _is_everything(routes: list[Any]) -> bool:
    """Whether routes that are in use lead to all addresses: a deleted NAT leaves a ``blackhole``."""
    used = [route for route in routes if route.get("State") == "active"]
    networks = [
        ipaddress.IPv4Network(r["DestinationCidrBlock"]) for r in used if r.get("DestinationCidrBlock")
    ]
    return ipaddress.IPv4Network("0.0.0.0/0") in ipaddress.collapse_addresses(networks)


def _leads_on(subnet: Mapping[str, Any], tables: list[Any]) -> list[str]:
    """Ways that lead to other networks, of which nobody here can tell where they end."""
    ways = _ways(subnet, tables)
    further = {way: routes for way, routes in ways.items() if way not in {"local", "igw", "nat", "vpce"}}
    used = {way: [r for r in routes if r.get("State") == "active"] for way, routes in further.items()}
    return sorted(way for way, routes in used.items() if _is_everything(routes) or any(map(_of_ipv6, routes)))


def _of_ipv6(route: Mapping[str, Any]) -> bool:
    return route.get("DestinationIpv6CidrBlock") == "::/0"


def _endpoints(
    aws: Mapping[str, Any], where: str, seen: Mapping[str, Any], subnets: list[Any], tables: list[Any]
) -> Iterator[Finding]:
    """Endpoints that stand for a way out, where there is none."""
    there = {e["ServiceName"].rpartition(".")[2]: e for e in seen["endpoints"]["VpcEndpoints"] if e["State"].lower() == "available"}  # fmt: skip
    further = sorted({way for subnet in subnets for way in _leads_on(subnet, tables)})
    # Where each private subnet leads on, it may be that what it leads to has a way out.
    doubtful = all(_leads_on(subnet, tables) for subnet in subnets)
    for service in (*_MUST, *_MAY):
        subject = f"{where}: endpoint {service}"
        if service not in there and doubtful:
            said = f"is not in the VPC, and whether {', '.join(further)} leads to {service} is not known here"
            yield unknown(subject, said, f"ask who runs that network, or add an endpoint for {service}")
            continue
        if service not in there:
            said = "is not in the VPC, and its private subnets have no other way out"
            yield unready(
                subject, said, f"add an endpoint of the VPC for {service}", blocking=service in _MUST
            )
            continue
        if there[service].get("VpcEndpointType") != "Interface":
            continue
        if not there[service].get("PrivateDnsEnabled"):
            yield unready(subject, "answers to no name that machines know", "enable its private DNS names")
        yield from _lets_in(subject, there[service], seen["groups"], subnets, aws.get("security_group_name"))
    for flag in ("enableDnsSupport", "enableDnsHostnames"):
        answer = seen[flag]
        if not isinstance(answer, Refused) and not answer[flag[0].upper() + flag[1:]]["Value"]:
            said = "is off, and endpoints are found by their names"
            yield unready(
                f"{where}: {flag}", said, f"aws ec2 modify-vpc-attribute --vpc-id ID --{_dashed(flag)}"
            )


def _lets_in(
    subject: str, endpoint: Mapping[str, Any], groups: Any, subnets: list[Any], own: str | None
) -> Iterator[Finding]:
    """Whether an endpoint's security groups let the subnets in at port 443; ``own`` is the group of machines."""
    if isinstance(groups, Refused):
        return
    ids = {group["GroupId"] for group in endpoint.get("Groups", ())}
    mine = {group["GroupId"] for group in groups["SecurityGroups"] if group["GroupName"] == own}
    rules = [
        rule
        for group in groups["SecurityGroups"]
        if group["GroupId"] in ids
        for rule in group["IpPermissions"]
        if _is_https(rule)
    ]
    members = {pair["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs") or ()}
    if members & mine:
        return
    networks = [
        ipaddress.IPv4Network(item["CidrIp"]) for rule in rules for item in rule.get("IpRanges") or ()
    ]
    open_to = list(ipaddress.collapse_addresses(networks))
    # SkyPilot reaches machines by IPv4: a subnet without is none of its.
    for subnet in (subnet for subnet in subnets if subnet.get("CidrBlock")):
        network = ipaddress.IPv4Network(subnet["CidrBlock"])
        if any(network.subnet_of(one) for one in open_to):
            continue
        at = f"{subnet['SubnetId']} ({subnet['CidrBlock']})"
        if members or any(rule.get("PrefixListIds") for rule in rules):
            said = f"lets in other groups or lists of networks at port 443, and whether machines of {at} are in them is not known"
            yield unknown(
                subject,
                said,
                "see that machines' own security group is let in, or name it: security_group_name",
            )
        else:
            said = f"lets nobody of {at} in at port 443"
            yield unready(subject, said, "add that rule to a security group of the endpoint")


def _is_https(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is about TCP at port 443."""
    everything = rule["IpProtocol"] == "-1"
    return everything or (rule["IpProtocol"] in {"tcp", "6"} and rule["FromPort"] <= 443 <= rule["ToPort"])


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


def _name_of(thing: Mapping[str, Any]) -> str | None:
    return next((tag["Value"] for tag in thing.get("Tags", ()) if tag["Key"] == "Name"), None)


def _dashed(flag: str) -> str:
    return {"enableDnsSupport": "enable-dns-support", "enableDnsHostnames": "enable-dns-hostnames"}[flag]
