"""The signed C2PA manifest inside every output (c2pa.org, specification 2.x).

It states that the pictures are synthetic, and records the digests of the avatar and of the driving clip, and the edits.
It holds no name of a person and no path. Signing uses no network, so there is no third-party time stamp.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mystudio import __version__
from mystudio.errors import OutputFailed, SigningFailed
from mystudio.provenance import signing
from mystudio.provenance.signing import SigningKey
from selfscan.io.containers import MP4, Container
from selfscan.io.naming import derived
from selfscan.types import Array

if TYPE_CHECKING:
    from mystudio.types import Edit

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: view of a render -> IPTC's term for the source of its pictures (digital source type)
SOURCE_TYPES = {
    "aligned": "trainedAlgorithmicMedia",
    "edit sheet": "trainedAlgorithmicMedia",
    "side-by-side": "compositeSynthetic",
    "live": "compositeSynthetic",
    "paste": "compositeWithTrainedAlgorithmicMedia",
}
STATEMENT = "mystudio.render"  # label of mystudio's own assertion
WHOLE_BYTES = 64 << 20  # larger clips are hashed in blocks, to bound memory
BLOCK_KB = 4096


@dataclass(frozen=True)
class ProvenanceSettings:
    """How outputs are marked."""

    mark: bool = True  # put a signed C2PA manifest into every output; false is recorded in the sidecar
    watermark: bool = True  # also hide the avatar's id in the pixels; needs mark = true
    sign_key: str | None = None  # PEM file of your own private key; by default a key made at first use
    sign_cert: str | None = None  # PEM file of sign_key's certificates, the signing certificate first


@dataclass(frozen=True)
class Claim:
    """The facts that an output's manifest records."""

    view: str  # one of SOURCE_TYPES
    avatar: str  # digest of the avatar
    fictional: bool  # True: the person does not exist; False: the person has consented
    driver: str | None = None  # sha256 of the driving clip
    take: str | None = None  # digest of the take
    edits: Sequence[Edit] = ()


def definition(claim: Claim, title: str) -> dict[str, Any]:
    """Return the manifest's definition in the form that the C2PA library takes."""
    inputs = {"avatar": (claim.avatar, "application/octet-stream"), "driving clip": (claim.driver, "video/mp4")}
    shown = "inputTo" if claim.view in ("aligned", "edit sheet") else "componentOf"
    ingredients = [
        {
            "title": name,
            "format": kind,
            "instance_id": f"sha256:{digest}",
            "label": name.replace(" ", "-"),
            "relationship": "inputTo" if name == "avatar" else shown,
        }
        for name, (digest, kind) in inputs.items()
        if digest
    ]
    person = "a person who does not exist" if claim.fictional else "a person who has consented"
    actions = [
        {
            "action": "c2pa.created",
            "digitalSourceType": SOURCE + SOURCE_TYPES[claim.view],
            "description": f"Synthetic media: pictures of {person}, made by a generator.",
            "parameters": {"ingredientIds": [one["label"] for one in ingredients]},
        }
    ]
    actions += [
        {"action": "c2pa.edited", "description": f"The avatar's {edit.name} was changed."} for edit in claim.edits
    ]
    statement = {
        "synthetic": True,
        "person": "fictional" if claim.fictional else "consenting",
        "view": claim.view,
        "avatar": claim.avatar,
        "driver": claim.driver,
        "take": claim.take,
        "edits": [
            {
                "name": e.name,
                "strength": float(e.strength),
                "edge": e.edge,
                "keys": [list(map(float, key)) for key in e.keys],
            }
            for e in claim.edits
        ],
    }
    return {
        "claim_generator_info": [{"name": "mystudio", "version": __version__}],
        "title": title,
        "ingredients": ingredients,
        "assertions": [
            {"label": "c2pa.actions.v2", "created": True, "data": {"actions": actions}},
            {"label": STATEMENT, "created": True, "data": statement},
        ],
    }


def signing_key(settings: ProvenanceSettings) -> SigningKey | None:
    """Return the key to sign with, or None if marking is off.

    The key is tried on a small picture first, so that a fault is reported before the long work.

    Raises: SigningFailed: the key, the certificates or the C2PA library cannot sign.
    """
    if not settings.mark:
        return None
    if (settings.sign_key is None) != (settings.sign_cert is None):
        raise SigningFailed(
            "expected a private key together with its certificates, got only one of sign_key and "
            "sign_cert; give both, or neither for a key made by mystudio"
        )
    who = (
        signing.read_signing_key(Path(settings.sign_key), Path(settings.sign_cert))
        if settings.sign_key and settings.sign_cert
        else signing.own_signing_key()
    )
    try:
        seal_png(_dot(), Claim("edit sheet", "0" * 64, True), who)
    except SigningFailed as error:
        raise SigningFailed(
            f"{error}; give another key and certificates, or turn marking off with --no-provenance"
        ) from None
    return who


def stamp(settings: ProvenanceSettings, avatar: str) -> Callable[[Array], Array] | None:
    """Return a function that embeds an avatar's digest in a picture [H, W, 3] uint8, or None if marking is off."""
    if not (settings.mark and settings.watermark):
        return None
    from mystudio.provenance.watermark import embed, payload_of

    return partial(embed, payload=payload_of(avatar))


def finisher(target: Path, claim: Claim, who: SigningKey, container: Container = MP4) -> Callable[[Path], None]:
    """Return a function that signs a finished temporary clip before it is renamed to ``target``.

    Args:
        container: of the clip; every picture of a folder is signed.
    If signing fails, the clip is kept unsigned as NAME.unsigned and the function raises OutputFailed.
    """

    def finish(whole: Path) -> None:
        signed = derived(whole, after=f".signed.part{whole.suffix}", stem=whole.stem)
        try:
            for file in sorted(whole.iterdir()) if whole.is_dir() else [whole]:
                with open(file, "rb") as source, open(signed, "w+b") as out:
                    _sign(source, out, container.mime, definition(claim, target.name), who, file.stat().st_size)
                os.replace(signed, file)
        except (OSError, SigningFailed) as error:
            kept = derived(target, after=f".unsigned{target.suffix}", stem=target.stem)
            os.replace(whole, kept)
            reason = getattr(error, "strerror", None) or error
            raise OutputFailed(
                f"the clip is finished but could not be signed ({reason}); it is kept without a mark as "
                f"{kept}; free space, or render again with --no-provenance"
            ) from error
        finally:
            signed.unlink(missing_ok=True)

    return finish


def seal_png(picture: bytes, claim: Claim, who: SigningKey, title: str = "picture.png") -> bytes:
    """Return a PNG with its manifest. Raises SigningFailed."""
    _sign(BytesIO(picture), out := BytesIO(), "image/png", definition(claim, title), who, len(picture))
    return out.getvalue()


def _sign(source: BinaryIO, out: BinaryIO, kind: str, manifest: dict, who: SigningKey, size: int) -> None:
    try:
        from c2pa import Builder, C2paError, C2paSignerInfo, Context, Settings, Signer
    except (ImportError, OSError, RuntimeError) as error:
        raise SigningFailed(f"the C2PA library cannot be used ({error}); pip install c2pa-python") from None
    blocks = {"merkle_tree_chunk_size_in_kb": BLOCK_KB} if size > WHOLE_BYTES else {}
    options = {
        "core": {"backing_store_memory_threshold_in_mb": 16, **blocks},
        "verify": {
            "verify_after_sign": True,
            "verify_trust": False,
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
        },
        "builder": {"thumbnail": {"enabled": False}},
    }
    try:
        with Context(Settings.from_dict(options)) as context, Builder(json.dumps(manifest), context) as builder:
            with Signer.from_info(C2paSignerInfo(who.algorithm, who.chain, who.key, None)) as signer:
                builder.sign(signer, kind, source, out)
    except C2paError as error:
        raise SigningFailed(f"signing as {who.name or 'nobody'} failed: {' '.join(str(error).split())[:200]}") from None


def _dot() -> bytes:
    import cv2

    return cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
