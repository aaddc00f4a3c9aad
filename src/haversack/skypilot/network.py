"""The network of a VPC as SkyPilot and Systems Manager find it: what follows from what AWS says of it; pure.

SkyPilot takes subnets with a way to an internet gateway, or with internal addresses alone those that have none and
give no public address; of subnets that are named it must be able to take every one that the region has
(``_usable_subnets`` of ``sky/provision/aws/config.py``).  Systems Manager needs a way out of them, a NAT, or endpoints
in the VPC (AWS Systems Manager user guide, "Improve the security of EC2 instances by using VPC endpoints").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from haversack.model.finding import Finding, unknown, unready
from haversack.skypilot.asking import Refused

FLAGS = {"enableDnsSupport": "--enable-dns-support", "enableDnsHostnames": "--enable-dns-hostnames"}
"""What a VPC has of DNS, and the option of ``aws ec2 modify-vpc-attribute`` that turns it on."""
# Without the first two nobody gets in; the machine and SkyPilot's own calls want the others now and then.
_MUST, _MAY = ("ssm", "ssmmessages"), ("ec2", "ec2messages", "sts", "s3")
_RAY = 6380  # SKY_REMOTE_RAY_PORT of sky/skylet/constants.py
_ANYWHERE = ipaddress.IPv4Network("0.0.0.0/0")


def judge(
    where: str, aws: Mapping[str, Any], seen: Mapping[str, Any], *, through_ssm: bool
) -> Iterator[Finding]:
    """Subnets, and the way from them to Systems Manager; ``seen`` holds answers by the names of their questions."""
    subnets, routes = seen["subnets"], seen["routes"]
    if isinstance(subnets, Refused) or isinstance(routes, Refused):
        return
    tables = routes["RouteTables"]
    wanted = aws.get("subnet_names") or ()
    yield from _names(where, wanted, seen)
    named = [s for s in subnets["Subnets"] if not wanted or _name_of(s) in wanted]
    lacking = {s["SubnetId"]: said for s in named if (said := _unusable(aws, s, tables))}
    usable = [s for s in named if s["SubnetId"] not in lacking]
    remedy = "leave use_internal_ips out" if aws.get("use_internal_ips") else "write use_internal_ips = true"
    for subnet in named if wanted else ():
        if said := lacking.get(subnet["SubnetId"]):
            subject = f"{where}: subnet {_name_of(subnet)} ({subnet['SubnetId']})"
            yield unready(
                subject, f"{said}; SkyPilot takes all that are named, or none", f"name others, or {remedy}"
            )
    # Of those that are named it is said already why there is none.
    if not usable and not wanted:
        said = "has no subnet that gives no public address and has no way to an internet gateway"
        if not aws.get("use_internal_ips"):
            said = "has no subnet with a way to an internet gateway, and SkyPilot takes no other without use_internal_ips"
        yield unready(f"{where}: VPC", said, f"add a subnet, or {remedy}")
    closed = []
    for subnet in usable:
        out = {way for way, found in _ways(subnet, tables).items() if _is_everything(found)}
        if not out & {"nat", "igw"}:
            closed.append(subnet)
    by_endpoints = bool(closed) and through_ssm and not isinstance(seen["endpoints"], Refused)
    # Where each private subnet leads on, it may be that what it leads to has a way out.
    doubtful = all(_leads_on(subnet, tables) for subnet in closed)
    if by_endpoints:
        yield from _endpoints(aws, where, seen, closed, tables, doubtful=doubtful)
    certain = by_endpoints and (not doubtful or any(map(_is_asked_by_name, _available(seen))))
    yield from _dns(where, seen, by_endpoints=by_endpoints, certain=certain)
    if name := aws.get("security_group_name"):
        yield from _lets_each_other_in(f"{where}: {name}", name, seen, usable, through_ssm=through_ssm)
        yield from _lets_out(
            f"{where}: {name}", name, seen, only_endpoints=closed == usable, through_ssm=through_ssm
        )


def _names(where: str, wanted: Sequence[str], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether subnets of these names are in the VPC, and in no other: SkyPilot asks the region for them."""
    ours = {s["SubnetId"]: _name_of(s) for s in seen["subnets"]["Subnets"]}
    for name in wanted:
        if name not in ours.values():
            said, remedy = "is not in the VPC", "correct the name, or tag the subnet"
            alone = not set(wanted) & set(ours.values())
            yield unready(f"{where}: subnet {name}", said, remedy, blocking=alone)
    found = seen.get("subnets of these names", Refused(""))
    for subnet in [] if isinstance(found, Refused) else found["Subnets"]:
        if subnet["SubnetId"] not in ours:
            subject = f"{where}: subnet {_name_of(subnet)}"
            said = f"{subnet['SubnetId']} of another VPC has this name too, and SkyPilot takes all of a name, or none"
            yield unready(subject, said, "give each a name of its own")


def _unusable(aws: Mapping[str, Any], subnet: Mapping[str, Any], tables: list[Any]) -> str | None:
    """Why SkyPilot does not take a subnet.  Any route to an internet gateway counts for it."""
    gateway = "igw" in _ways(subnet, tables)
    if subnet["State"] != "available":
        return "is not available yet"
    if not aws.get("use_internal_ips"):
        return None if gateway else "has no way to an internet gateway, and use_internal_ips is not said"
    if gateway:
        return "has a way to an internet gateway, and use_internal_ips is said"
    return "gives public addresses, and use_internal_ips is said" if subnet["MapPublicIpOnLaunch"] else None


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
    return _ANYWHERE in ipaddress.collapse_addresses(networks)


def _leads_on(subnet: Mapping[str, Any], tables: list[Any]) -> list[str]:
    """Ways that lead to other networks, of which nobody here can tell where they end."""
    ways = _ways(subnet, tables)
    further = {way: routes for way, routes in ways.items() if way not in {"local", "igw", "nat", "vpce"}}
    used = {way: [r for r in routes if r.get("State") == "active"] for way, routes in further.items()}
    return sorted(way for way, routes in used.items() if _is_everything(routes) or any(map(_of_ipv6, routes)))


def _of_ipv6(route: Mapping[str, Any]) -> bool:
    return route.get("DestinationIpv6CidrBlock") == "::/0"


def _endpoints(
    aws: Mapping[str, Any],
    where: str,
    seen: Mapping[str, Any],
    subnets: list[Any],
    tables: list[Any],
    *,
    doubtful: bool,
) -> Iterator[Finding]:
    """Endpoints that stand for a way out, where there is none, or it is ``doubtful`` whether there is."""
    there = _available(seen)
    further = sorted({way for subnet in subnets for way in _leads_on(subnet, tables)})
    for service in (*_MUST, *_MAY):
        subject = f"{where}: endpoint {service}"
        ours = [e for e in there if _service(e) == service]
        # One without names is passed by: machines go where the names lead, which may be out.
        asked = [e for e in ours if not doubtful or not _is_interface(e) or e.get("PrivateDnsEnabled")]
        found = [list(_endpoint(aws, subject, e, seen, subnets)) for e in asked]
        if found:
            # One that is well is enough: of several only one can have the names that machines know.
            least = min(found, key=lambda told: (any(f.blocking for f in told), len(told)))
            yield from (replace(f, blocking=f.blocking and service in _MUST) for f in least)
        elif doubtful:
            lacks = "answers to no name that machines know" if ours else "is not in the VPC"
            mend = "enable its private DNS names" if ours else f"add an endpoint for {service}"
            said = f"{lacks}, and whether {', '.join(further)} leads to {service} is not known here"
            yield unknown(subject, said, f"ask who runs that network, or {mend}")
        else:
            said, remedy = (
                "is not in the VPC, and its private subnets have no other way out",
                f"add an endpoint of the VPC for {service}",
            )
            yield unready(subject, said, remedy, blocking=service in _MUST)


def _endpoint(
    aws: Mapping[str, Any],
    subject: str,
    endpoint: Mapping[str, Any],
    seen: Mapping[str, Any],
    subnets: list[Any],
) -> Iterator[Finding]:
    """What is wrong with one endpoint; one of routes has neither names nor groups."""
    if not _is_interface(endpoint):
        return
    if not endpoint.get("PrivateDnsEnabled"):
        yield unready(subject, "answers to no name that machines know", "enable its private DNS names")
    yield from _lets_in(subject, endpoint, seen["groups"], subnets, aws.get("security_group_name"))


def _service(endpoint: Mapping[str, Any]) -> str:
    return str(endpoint["ServiceName"]).rpartition(".")[2]


def _available(seen: Mapping[str, Any]) -> list[Any]:
    return [e for e in seen["endpoints"]["VpcEndpoints"] if e["State"].lower() == "available"]


def _is_interface(endpoint: Mapping[str, Any]) -> bool:
    return endpoint.get("VpcEndpointType") == "Interface"


def _is_asked_by_name(endpoint: Mapping[str, Any]) -> bool:
    """Whether machines would find an endpoint by Amazon's names that nobody gets in without; one of routes has none."""
    return _service(endpoint) in _MUST and _is_interface(endpoint) and bool(endpoint.get("PrivateDnsEnabled"))


def _dns(where: str, seen: Mapping[str, Any], *, by_endpoints: bool, certain: bool) -> Iterator[Finding]:
    """Whether machines find names: those of endpoints are Amazon's own, others another server may know.

    ``certain`` says that it is endpoints of this VPC by which machines are reached.
    """
    for flag, option in FLAGS.items():
        answer = seen[flag]
        if isinstance(answer, Refused) or answer[flag[0].upper() + flag[1:]]["Value"]:
            continue
        subject, remedy = f"{where}: {flag}", f"aws ec2 modify-vpc-attribute --vpc-id ID {option}"
        if certain:
            yield unready(subject, "is off, and endpoints are found by their names", remedy)
        elif flag == "enableDnsHostnames" and by_endpoints:
            said = "is off, and whether names of endpoints elsewhere are found without is not known"
            yield unknown(subject, said, remedy)
        elif flag == "enableDnsSupport":
            said = (
                "is off, and whether the VPC's DHCP options name another server that knows names is not known"
            )
            yield unknown(subject, said, remedy)


def _lets_out(
    subject: str, name: str, seen: Mapping[str, Any], *, only_endpoints: bool, through_ssm: bool
) -> Iterator[Finding]:
    """Whether the security group of machines lets them out to Systems Manager, at port 443.

    SkyPilot adds no such rule to a group that it finds.
    """
    if isinstance(seen["groups"], Refused):
        return
    groups = [g for g in seen["groups"]["SecurityGroups"] if g["GroupName"] == name]
    every = [rule for group in groups for rule in group["IpPermissionsEgress"]]
    rules = [rule for rule in every if _is_https(rule)]
    remedy = "add a rule to it: out, TCP, port 443"
    if groups and not every:
        yield unready(subject, "lets nothing out, and machines take packages from nowhere", remedy)
    if not every or not through_ssm:
        return
    if not rules:
        yield unready(subject, "lets nothing out at port 443, where Systems Manager answers", remedy)
    open_to = _networks(rules)
    if not rules or _ANYWHERE in open_to:
        return
    endpoints = seen["endpoints"]["VpcEndpoints"] if not isinstance(seen["endpoints"], Refused) else []
    members = {pair["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs") or ()}
    places = {s["SubnetId"]: s.get("CidrBlock") for s in seen["subnets"]["Subnets"]}
    reached = {
        _service(e)
        for e in endpoints
        if members & {g["GroupId"] for g in e.get("Groups") or ()}
        or any(_is_in(places.get(subnet), open_to) for subnet in e.get("SubnetIds") or ())
    }
    if not (only_endpoints and reached.issuperset(_MUST)):
        said = "lets machines out to some networks or groups alone at port 443, and whether Systems Manager is there is not known"
        yield unknown(subject, said, remedy)


def _lets_each_other_in(
    subject: str, name: str, seen: Mapping[str, Any], subnets: list[Any], *, through_ssm: bool
) -> Iterator[Finding]:
    """Whether the security group of machines lets them in among themselves, and whose rules it has.

    SkyPilot adds rules inward, from the group itself and from everywhere at port 22, to a group without any, and to no
    other (``_configure_security_group`` of ``sky/provision/aws/config.py``).
    """
    if isinstance(seen["groups"], Refused):
        return
    remedy = "add a rule to it: in, everything, from the group itself"
    for group in (g for g in seen["groups"]["SecurityGroups"] if g["GroupName"] == name):
        if not group["IpPermissions"]:
            said = "has no rule inward, and SkyPilot adds its own: from the group itself, and from everywhere at port 22"
            more = "" if through_ssm else "; and one for port 22, from the server"
            yield unready(subject, said, f"{remedy}{more}", blocking=False)
            continue
        rules = [rule for rule in group["IpPermissions"] if _is_tcp(rule, _RAY)]
        members = {pair["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs") or ()}
        open_to = _networks(rules)
        if group["GroupId"] in members or all(_is_in(s.get("CidrBlock"), open_to) for s in subnets):
            continue
        if any(rule.get("PrefixListIds") for rule in rules):
            said = f"lets in lists of networks, and whether nodes of one cluster reach each other at port {_RAY} is not known"
            yield unknown(subject, said, remedy)
        else:
            said = f"has rules inward, to which SkyPilot adds none, and nodes of one cluster do not reach each other at port {_RAY}"
            yield unready(subject, said, remedy, blocking=False)


def _networks(rules: list[Any]) -> list[ipaddress.IPv4Network]:
    """The networks of rules, joined where they touch."""
    every = [ipaddress.IPv4Network(item["CidrIp"]) for rule in rules for item in rule.get("IpRanges") or ()]
    return list(ipaddress.collapse_addresses(every))


def _is_in(network: str | None, every: list[ipaddress.IPv4Network]) -> bool:
    return network is not None and any(ipaddress.IPv4Network(network).subnet_of(one) for one in every)


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
    open_to = _networks(rules)
    # SkyPilot reaches machines by IPv4: a subnet without is none of its.
    for subnet in (subnet for subnet in subnets if subnet.get("CidrBlock")):
        if _is_in(subnet["CidrBlock"], open_to):
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
    return _is_tcp(rule, 443)


def _is_tcp(rule: Mapping[str, Any], port: int) -> bool:
    everything = rule["IpProtocol"] == "-1"
    return everything or (rule["IpProtocol"] in {"tcp", "6"} and rule["FromPort"] <= port <= rule["ToPort"])


def _name_of(thing: Mapping[str, Any]) -> str | None:
    return next((tag["Value"] for tag in thing.get("Tags", ()) if tag["Key"] == "Name"), None)
