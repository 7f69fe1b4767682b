"""The descriptions' layouts are those of Xen's public headers, for both x86 ABIs."""

import subprocess

import pytest
from support.ring_messages import rings_of

SLOT_OF = {"io": "blkif", "tx": "netif_tx", "rx": "netif_rx", "ctrl": "xen_netif_ctrl"}
GSO = {"gso_size": "u.gso.size", "gso_type": "u.gso.type"}
HASH = {"hash_type": "u.hash.type", "algorithm": "u.hash.algorithm"}
IN_XEN = {
    ("io", "transfer"): ("blkif_request_t", {"seg": "seg"}),
    ("io", "discard"): ("blkif_request_discard_t", {}),
    ("io", "indirect"): ("blkif_request_indirect_t", {"page": "indirect_grefs"}),
    ("io", "done"): ("blkif_response_t", {}),
    ("tx", "packet"): ("netif_tx_request_t", {}),
    ("tx", "fragment"): ("netif_tx_request_t", {}),
    ("tx", "gso"): ("netif_extra_info_t", GSO),
    ("tx", "multicast"): ("netif_extra_info_t", {}),
    ("tx", "hash"): ("netif_extra_info_t", HASH),
    ("tx", "sent"): ("netif_tx_response_t", {}),
    ("tx", "nothing"): ("netif_tx_response_t", {}),
    ("rx", "buffer"): ("netif_rx_request_t", {}),
    ("rx", "packet"): ("netif_rx_response_t", {}),
    ("rx", "rx-fragment"): ("netif_rx_response_t", {}),
    ("rx", "rx-gso"): ("netif_extra_info_t", GSO),
    ("rx", "rx-hash"): ("netif_extra_info_t", HASH),
    ("ctrl", "command"): ("struct xen_netif_ctrl_request", {}),
    ("ctrl", "result"): ("struct xen_netif_ctrl_response", {}),
}
"""The type of each message, and the members that are called otherwise there."""
LINUXS_OWN = {("rx", "rx-xdp")}


def of_message(kind, names, message, abi):
    """What must hold of a message's fields and lists."""
    for field in message.fields:
        member = names.get(field.name, field.name)
        yield f"offsetof({kind}, {member}) == {field.at[abi]}"
        yield f"sizeof((({kind} *)0)->{member}) == {field.size}"
    for one in message.lists:
        if one.at is not None:
            member = names[one.name]
            yield f"offsetof({kind}, {member}) == {one.at[abi]}"
            yield f"sizeof((({kind} *)0)->{member}) == {one.most * one.item}"
        if one.name == "seg":
            yield f"sizeof(struct blkif_request_segment) == {one.item}"
            for field in one.fields:
                yield f"offsetof(struct blkif_request_segment, {field.name}) == {field.at[abi]}"


def of_ring(ring, abi):
    """What must hold of a ring."""
    yield f"sizeof(union {SLOT_OF[ring.name]}_sring_entry) == {ring.requests.size[abi]}"
    for side in (ring.requests, ring.responses):
        for message in (one for place in side.places for one in place.messages):
            if (ring.name, message.name) not in LINUXS_OWN:
                yield from of_message(*IN_XEN[ring.name, message.name], message, abi)


@pytest.mark.parametrize(("abi", "flag"), [("x86_64-abi", "-m64"), ("x86_32-abi", "-m32")])
def test_the_layouts_are_those_of_xens_headers(tmp_path, abi, flag):
    claims = []
    for rings in map(rings_of, ("vbd", "vif")):
        index = rings.abis.index(abi) if abi in rings.abis else 0
        for ring in rings.rings:
            claims += of_ring(ring, index)
    assert len(claims) > 60
    (tmp_path / "string.h").touch()  # Xen's headers include it; -m32 has no C library here
    headers = ("stddef", "stdint", "xen/io/blkif", "xen/io/netif")
    lines = [f"#include <{one}.h>" for one in headers]
    lines += [f'_Static_assert({claim}, "{claim}");' for claim in claims]
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    flags = (flag, "-ffreestanding", "-fsyntax-only", "-std=gnu11", f"-I{tmp_path}")
    done = subprocess.run(["gcc", *flags, source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
