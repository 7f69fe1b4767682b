"""`brokerctl policy import-acm|export-acm|inspect-acm`: policies of sHype/ACM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, show
from broker.cli.client import DENIED, SUCCESS

if TYPE_CHECKING:
    import argparse

    from broker.policy.acm.binary import BinaryHeader
    from broker.policy.acm.map_file import MapFile
    from broker.policy.acm.read import Source


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    policy = groups.group(commands, "policy")
    _import_command(policy)
    leaf = groups.command(
        policy,
        "export-acm",
        offline.reporting(_export),
        help="a policy as ACM's XML; refused where ACM would decide otherwise",
        example="brokerctl policy export-acm corp.yaml > corp-security_policy.xml",
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="the policy (YAML)")
    leaf.add_argument(
        "--lossy", action="store_true", help="write it even where ACM would decide otherwise"
    )
    leaf = groups.command(
        policy,
        "inspect-acm",
        offline.reporting(_inspect),
        help="what a compiled ACM policy (.bin) or its .map says",
        example="brokerctl policy inspect-acm client_v1.bin",
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="a .bin or .map file")
    leaf.add_argument(
        "--ssidref",
        metavar="NUMBER",
        type=_number,
        help="which label a reference of a saved domain names, by the .map (decimal, or 0x...)",
    )


def _import_command(policy: groups.Commands) -> None:
    leaf = groups.command(
        policy,
        "import-acm",
        offline.reporting(_import),
        help="a policy of ACM's, in XML, as YAML on standard output",
        example=(
            "brokerctl policy import-acm client_v1-security_policy.xml \\\n"
            "    --numbering alphabetical > client_v1.yaml"
        ),
    )
    leaf.add_argument("file", metavar="FILE.xml", type=Path, help="NAME-security_policy.xml")
    leaf.add_argument(
        "--numbering",
        choices=("document", "alphabetical"),
        help="how labels are numbered: as the C compiler did (to 2007), or the Python one; "
        "default: as the --map says, else document",
    )
    leaf.add_argument(
        "--labels",
        metavar="FILE.xml",
        type=Path,
        help="NAME-security_label_template.xml, of a policy of 2005",
    )
    leaf.add_argument(
        "--map", metavar="FILE.map", type=Path, help="the compiler's map; numbers must agree"
    )
    leaf.add_argument(
        "--resources",
        metavar="FILE",
        type=Path,
        help="xend's resource_labels: which disks are which resource (parsed, not run)",
    )
    leaf.add_argument(
        "--classes",
        metavar="A,B",
        default="vif,vbd",
        help="device classes of the policy (default: %(default)s)",
    )
    leaf.add_argument(
        "--accept",
        metavar="WHAT",
        action="append",
        default=[],
        choices=_acceptable(),
        help=f"take over what is refused else: {', '.join(_acceptable())}; can be repeated",
    )


def _acceptable() -> tuple[str, ...]:
    # The words of `adopt.ACCEPTABLE` (a test holds them together); importing it takes time that
    # every other command would pay.
    return (
        "names",
        "unlabeled",
        "conflict-types",
        "no-ste",
        "type-lists",
        "foreign-labels",
        "version",
    )


def _source(path: Path | None) -> Source | None:
    from broker.policy.acm.read import Source  # noqa: PLC0415 - as in offline.policy

    return None if path is None else Source(offline.read(path), str(path))


class _Imported(msgspec.Struct, frozen=True):
    ok: bool
    policy: str
    version: str
    digest: str
    text: str


def _import(options: argparse.Namespace) -> int:
    from broker.policy.acm.load import import_acm  # noqa: PLC0415 - as in offline.policy
    from broker.policy.acm.read import Source  # noqa: PLC0415

    imported = import_acm(
        Source(offline.read(options.file), str(options.file)),
        labels=_source(options.labels),
        resources=_source(options.resources),
        numbering=options.numbering,
        map_file=_source(options.map),
        accept=frozenset(options.accept),
        classes=tuple(options.classes.split(",")),
    )
    offline.report(imported.notes, "note", as_json=options.json)
    if options.json:
        policy = imported.policy
        version = f"{policy.version[0]}.{policy.version[1]}"
        show.json_line(
            _Imported(
                ok=True,
                policy=policy.name,
                version=version,
                digest=policy.digest,
                text=imported.text,
            )
        )
    else:
        show.document(imported.text)
    return SUCCESS


class _Exported(msgspec.Struct, frozen=True):
    ok: bool
    text: str


def _export(options: argparse.Namespace) -> int:
    from broker.policy.acm.export import export_acm  # noqa: PLC0415 - as in offline.policy

    exported = export_acm(offline.policy(options.file).definition, str(options.file))
    offline.report(exported.left_out, "note", as_json=options.json)
    lost = exported.decided_otherwise
    offline.report(lost, "warning" if options.lossy else "error", as_json=options.json)
    if lost and not options.lossy:
        return DENIED
    if options.json:
        show.json_line(_Exported(ok=True, text=exported.text))
    else:
        show.document(exported.text)
    return SUCCESS


def _number(text: str) -> int:
    number = int(text, 0)
    if not 0 <= number <= 0xFFFF_FFFF:
        raise ValueError(text)
    return number


def _inspect(options: argparse.Namespace) -> int:
    from broker.policy.acm.binary import MAGIC, read_binary  # noqa: PLC0415 - as in offline.policy
    from broker.policy.acm.map_file import read_map  # noqa: PLC0415

    data = offline.read(options.file)
    if data[:4] == MAGIC.to_bytes(4, "big"):
        if options.ssidref is not None:
            raise offline.unknown(options.file, "labels to look for", f"{options.ssidref:#010x}")
        header = read_binary(data, str(options.file))
        if options.json:
            show.json_line(header)
        else:
            _print_header(header)
        return SUCCESS
    read = read_map(data, str(options.file))
    if options.ssidref is not None:
        return _print_label(options, read)
    if options.json:
        show.json_line(read)
    else:
        _print_map(read)
    return SUCCESS


class _Label(msgspec.Struct, frozen=True):
    ssidref: int
    label: str


def _print_label(options: argparse.Namespace, read: MapFile) -> int:
    label = read.label_of(options.ssidref)
    if label is None:
        raise offline.unknown(options.file, "one label of", f"{options.ssidref:#010x}")
    if options.json:
        show.json_line(_Label(options.ssidref, label))
    else:
        show.line(show.text(label))
    return SUCCESS


def _print_map(read: MapFile) -> None:
    show.facts(
        [
            ("policy", show.text(read.policy)),
            ("components", f"primary {read.primary}, secondary {read.secondary}"),
        ]
    )
    names = dict.fromkeys(name for table in read.labels.values() for name in table)
    kept = dict.fromkeys(name for table in read.resources.values() for name in table)
    rows = [("label", name, f"{read.ssidref(name):08x}") for name in names]
    rows += [("resource", name, f"{read.ssidref(name, resource=True):08x}") for name in kept]
    show.table(["Kind", "Name", "Ssidref"], rows)


def _print_header(header: BinaryHeader) -> None:
    show.facts(
        [
            ("policy", show.text(header.policy)),
            ("version", f"{header.version[0]}.{header.version[1]}"),
            ("bytes", str(header.length)),
            ("components", f"primary {header.primary}, secondary {header.secondary}"),
            ("sha-1 of xml", header.xml_sha1),
            *(("remark", remark) for remark in header.remarks),
        ]
    )
