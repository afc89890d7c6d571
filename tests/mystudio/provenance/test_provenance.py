"""Marks: every render is marked, changes are detected, and marking changes no frame count, time stamp or sound."""

import base64
import dataclasses
import datetime
import json
import os
import re
import resource
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mystudio.cli import cli
from mystudio.errors import StudioError
from mystudio.provenance import claim as provenance
from mystudio.provenance import credentials, signing
from mystudio.provenance.claim import Claim
from mystudio.provenance.verify import examine
from mystudio.storage import artifacts, manifest, workspace
from mystudio.types import Edit
from selfscan.io import mux, video
from selfscan.io.digest import file_digest

C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


@pytest.fixture(scope="module")
def studio(tmp_path_factory, tiny_avatar, performance, take, driving_clip) -> Path:
    """An avatar, a performance of a clip with sound, a take and an edited take."""
    folder = tmp_path_factory.mktemp("my studio é")
    mux.join(Path(driving_clip), folder / "driver.mp4", take.times, tone(folder / "tone.mp4"))
    avatar = dataclasses.replace(
        tiny_avatar, state=dataclasses.replace(tiny_avatar.state, directions={"smile": torch.ones(16)})
    )
    edits = (Edit("smile", 1.5), Edit("yaw", keys=((0.0, 0.0), (0.2, 1.0))))
    clip, acted, me = folder / "driver.mp4", folder / "driver.performance", folder / "me.avatar"
    for path, artifact, inputs in (
        (acted, performance, {"video": clip}),
        (me, avatar, {}),
        (folder / "hello.take", take, {"avatar": me, "performance": acted}),
        (folder / "smile.take", dataclasses.replace(take, edits=edits), {"avatar": me, "performance": acted}),
    ):
        with workspace.stage(path, artifacts.KINDS[type(artifact)], inputs, {}) as run:
            artifacts.save(artifact, run)
    return folder


@pytest.fixture(scope="module")
def clip(studio) -> Path:
    run("render", studio / "smile.take", "-o", studio / "smile.mp4")
    return studio / "smile.mp4"


def tone(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        wave = (np.sin(np.arange(30_000) * 0.05) * 9000).astype(np.int16)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def run(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words)], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def verified(path: Path, *words, code=0):
    result = run("verify", path, *words, "--json", code=code)
    told = json.loads(result.stdout.splitlines()[-1])
    if code:
        assert len(result.stderr.splitlines()) == 1 and not told["ok"]
        return told["error"]
    return told["findings"][0]


def noise(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio in dB."""
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def boxes(data: bytes) -> list[tuple[str, int, int]]:
    """Kind, start and end of every box at the top of an mp4."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        found.append((kind.decode("latin-1"), at, at + size))
        at += max(size, 8)
    return found


def box(data: bytes, kind: str) -> tuple[int, int]:
    return next((start, end) for name, start, end in boxes(data) if name == kind)


def streams(path: Path) -> list[tuple]:
    with av.open(str(path)) as container:
        return [(p.stream.type, p.pts, p.dts, p.duration, bytes(p)) for p in container.demux() if p.dts is not None]


def test_a_render_says_what_it_is(studio, clip):
    found = verified(clip)
    said = found["details"]
    assert found["state"] == "found" and said["known"] and said["synthetic"] and said["person"] == "fictional"
    assert said["avatar"] == manifest.digest(studio / "me.avatar")
    assert said["driver"] == file_digest(studio / "driver.mp4")
    assert said["take"] == manifest.digest(studio / "smile.take")
    assert said["edits"] == [
        {"name": "smile", "strength": 1.5, "keys": [], "edge": "project"},
        {"name": "yaw", "strength": 1.0, "keys": [[0.0, 0.0], [0.2, 1.0]], "edge": "project"},
    ]
    words = run("verify", clip).stdout
    assert "known here" in words and "smile +1.5, yaw over time" in words and said["avatar"] in words
    data = clip.read_bytes()
    assert b"Ada Nobody" not in data and b"studio" not in data.replace(b"mystudio", b"")  # neither name nor path
    assert b"trainedAlgorithmicMedia" in data and b"c2pa.created" in data
    assert [kind for kind, *_ in boxes(data)][:3] == ["ftyp", "uuid", "moov"]


def test_the_manifest_costs_no_frame_no_time_stamp_and_no_sound(studio):
    bare, signed = studio / "bare.mp4", studio / "signed.mp4"
    run("render", studio / "smile.take", "-o", bare, "--no-provenance")
    run("render", studio / "smile.take", "-o", signed, "--option", "provenance.watermark=false")
    assert streams(bare) == streams(signed) and verified(signed)["state"] == "found"
    assert {kind for kind, *_ in streams(bare)} == {"video", "audio"}
    for (one, a), (other, b) in zip(video.read(bare), video.read(signed), strict=True):
        assert one == other and np.array_equal(a, b)
    assert sorted(p.name for p in studio.glob("*part*")) == []


def test_the_watermark_tells_the_avatar_and_is_not_seen(studio, clip):
    bare = studio / "bare2.mp4"
    run("render", studio / "smile.take", "-o", bare, "--no-provenance")
    manifest_, hidden = examine(clip)
    assert hidden.state == "found" and hidden.mark == "watermark"
    assert hidden.details["avatar"] == manifest_.details["avatar"][:12]
    assert examine(bare)[1].state == "absent"
    for (one, a), (other, b) in zip(video.read(bare), video.read(clip), strict=True):
        assert one == other and noise(a, b) > 38  # dB, with two encodings between them


@pytest.mark.parametrize(
    "view, word", [("side-by-side", "compositeSynthetic"), ("paste", "compositeWithTrainedAlgorithmicMedia")]
)
def test_composites_are_called_composites(studio, view, word):
    out = studio / f"{view}.mp4"
    run("render", studio / "hello.take", "-o", out, "--view", view)
    assert verified(out)["details"]["view"] == view and verified(out)["details"]["edits"] == []
    assert word.encode() in out.read_bytes()


@pytest.mark.parametrize("place", ["frame", "last frame", "index", "statement", "signer", "end"])
def test_a_changed_byte_is_found_out(clip, tmp_path, place):
    data = bytearray(clip.read_bytes())
    start, end = box(data, "mdat")
    at = {
        "frame": start + 40,
        "last frame": end - 3,
        "index": box(data, "moov")[0] + 120,
        "statement": data.index(b"fictional"),
        "signer": data.index(b"mystudio key"),
        "end": len(data) - 1,
    }[place]
    data[at] ^= 1
    (tmp_path / "x.mp4").write_bytes(data)
    assert "was changed after signing" in verified(tmp_path / "x.mp4", code=1)


def test_a_manifest_that_was_taken_out_or_taken_over_is_found_out(studio, clip, tmp_path):
    data = clip.read_bytes()
    times = np.array([time for time, _ in video.read(clip)])
    stripped = tmp_path / "smile.mp4"
    mux.join(clip, stripped, times, clip)  # a re-wrap as any video program does it
    left = verified(stripped)  # the watermark survives
    assert left["state"] == "absent" and "no C2PA manifest" in left["statement"]
    (tmp_path / ".smile.mp4.made").write_bytes((studio / ".smile.mp4.made").read_bytes())
    assert "the mark was removed" in verified(stripped)["statement"]
    start, end = box(data, "uuid")
    (tmp_path / "free.mp4").write_bytes(data[: start + 4] + b"free" + data[start + 8 :])
    assert "no C2PA manifest" in verified(tmp_path / "free.mp4")["statement"]
    other = studio / "other.mp4"
    run("render", studio / "hello.take", "-o", other, "--no-provenance")
    bare = other.read_bytes()
    at = box(bare, "moov")[0]
    (tmp_path / "over.mp4").write_bytes(bare[:at] + data[start:end] + bare[at:])
    assert "was changed after signing" in verified(tmp_path / "over.mp4", code=1)


def test_turning_it_off_is_recorded_and_said(studio):
    out = studio / "off.mp4"
    assert "without a mark, as you chose" in run("render", studio / "hello.take", "-o", out, "--no-provenance").stdout
    recorded = json.loads((studio / ".off.mp4.made").read_text())
    assert recorded["settings"]["provenance"]["mark"] is False
    assert recorded["sha256"] == file_digest(out)
    assert "turned off on purpose" in verified(out, code=1)
    stamp = out.stat().st_mtime_ns
    run("render", studio / "hello.take", "-o", out, "--option", "provenance.mark=false")
    assert out.stat().st_mtime_ns == stamp  # the same settings: up to date
    run("render", studio / "hello.take", "-o", out)
    assert verified(out)["state"] == "found"


def test_the_key_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "a" / "home é"))
    code = "from mystudio.provenance import signing; print(signing.own_signing_key().name)"
    makers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {maker.communicate(timeout=60)[0] for maker in makers}
    assert len(names) == 1 and "mystudio key" in names.pop()
    file = signing.key_file()
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(file.parent) == ["signing.pem"]
    text = file.read_text()
    assert text.count("PRIVATE KEY-----") == 2 and text.count("BEGIN CERTIFICATE") == 2  # the issuer's key is not kept
    file.write_text(text[:200])
    with pytest.raises(provenance.SigningFailed, match="move it away"):
        provenance.signing_key(provenance.ProvenanceSettings())


def test_without_a_home_renders_are_signed_with_a_key_that_is_forgotten(studio, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "file" / "home"))
    run("render", studio / "hello.take", "-o", tmp_path / "x.mp4")
    assert "no folder to keep a signing key" in caplog.text
    found = verified(tmp_path / "x.mp4")
    assert found["state"] == "found" and not found["details"]["known"] and "anybody could have" in found["statement"]
    assert sorted(os.listdir(tmp_path)) == [".x.mp4.made", "file", "x.mp4"]


def test_a_home_that_does_not_exist_is_not_made(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("MYSTUDIO_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    assert signing.key_file() is None and signing.own_issuer() == b""
    assert provenance.signing_key(provenance.ProvenanceSettings()).algorithm == "es256"
    assert "this user has no home" in caplog.text and os.listdir(tmp_path) == []
    (tmp_path / "gone").mkdir()
    made = signing.own_signing_key()
    assert signing.own_signing_key() == made and signing.own_issuer() in made.chain
    assert signing.key_file() == tmp_path / "gone/.local/share/mystudio/keys/signing.pem"


def own_key(folder: Path, days=30, password=None) -> tuple[Path, Path, Path]:
    """Key, chain and issuer of a user with certificates of their own, in files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    folder.mkdir(exist_ok=True)
    made = signing.make()
    private = serialization.load_pem_private_key(made, None)
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key, chain, issuer = folder / "key.pem", folder / "chain.pem", folder / "ca.pem"
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
    found = signing.certificates(made)
    if days < 0:
        old = x509.load_pem_x509_certificate(found[0])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(
            old.issuer,
            old.subject,
            old.public_key(),
            7,
            now - datetime.timedelta(days=9),
            now + datetime.timedelta(days=days),
        )
        from cryptography.hazmat.primitives.hashes import SHA256

        found[0] = builder.sign(private, SHA256()).public_bytes(serialization.Encoding.PEM)
    chain.write_bytes(b"".join(found))
    issuer.write_bytes(found[-1])
    return key, chain, issuer


def test_a_users_own_key_signs_and_is_known_to_those_who_trust_its_issuer(studio, tmp_path):
    key, chain, issuer = own_key(tmp_path / "keys")
    out = tmp_path / "x.mp4"
    run("render", studio / "hello.take", "-o", out, "--sign-key", key, "--sign-cert", chain)
    assert not verified(out)["details"]["known"] and verified(out, "--trust", issuer)["details"]["known"]
    _, _, stranger = own_key(tmp_path / "others")
    assert not verified(out, "--trust", stranger)["details"]["known"]
    assert "no certificate" in verified(out, "--trust", key, code=1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_key_that_an_editor_saved_again_is_read(encoding, tmp_path):
    key, chain, _ = own_key(tmp_path)
    known = signing.read_signing_key(key, chain)
    for path in (key, chain):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert signing.read_signing_key(key, chain) == known


def test_a_key_that_is_not_fit_is_told_before_the_work(studio, tmp_path):
    key, chain, _ = own_key(tmp_path / "a")
    other, _, _ = own_key(tmp_path / "b")
    locked, its, _ = own_key(tmp_path / "c", password=b"secret")
    late, expired, _ = own_key(tmp_path / "d", days=-1)
    (tmp_path / "noise.pem").write_bytes(bytes(range(256)))
    (tmp_path / "leaf.pem").write_bytes(signing.certificates(chain.read_bytes())[1])
    for words, expected in (
        (["--sign-key", key], "together with"),
        (["--sign-key", other, "--sign-cert", chain], "does not match"),
        (["--sign-key", locked, "--sign-cert", its], "encrypted"),
        (["--sign-key", late, "--sign-cert", expired], "is valid from"),
        (["--sign-key", key, "--sign-cert", tmp_path / "noise.pem"], "certificate"),
        (["--sign-key", tmp_path / "noise.pem", "--sign-cert", chain], "private key"),
        (["--sign-key", key, "--sign-cert", tmp_path / "leaf.pem"], "does not match"),
        (["--sign-key", tmp_path / "no", "--sign-cert", chain], "no PEM file"),
    ):
        told = run("render", studio / "hello.take", "-o", tmp_path / "x.mp4", *words, code=1).stderr
        assert expected in told and len(told.splitlines()) == 1, told
        assert not (tmp_path / "x.mp4").exists()


@pytest.mark.parametrize(
    "known, unknown, expected",
    [
        ("06072a8648ce3d0201", "06072b8648ce3d0201", "expected a certificate with a key of a supported kind"),
        ("a003020102", "a003020103", "expected whole certificates as PEM"),
    ],
    ids=["kind of key", "version"],
)
def test_a_certificate_of_an_unknown_kind_is_told(known, unknown, expected, tmp_path):
    import ssl

    key, chain, _ = own_key(tmp_path)
    whole = ssl.PEM_cert_to_DER_cert(signing.certificates(chain.read_bytes())[0].decode())
    assert whole.count(bytes.fromhex(known)) == 1
    chain.write_text(ssl.DER_cert_to_PEM_cert(whole.replace(bytes.fromhex(known), bytes.fromhex(unknown))))
    with pytest.raises(StudioError, match=expected):
        signing.read_signing_key(key, chain)


def test_a_clip_that_cannot_be_signed_is_kept_under_another_name(studio, tmp_path):
    run("render", studio / "hello.take", "-o", tmp_path / "bare.mp4", "--no-provenance")
    size = (tmp_path / "bare.mp4").stat().st_size
    (tmp_path / "x.mp4").write_bytes(b"older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, limits[1]))  # room for the clip, not for its manifest
    try:
        told = run(
            "render", studio / "hello.take", "-o", tmp_path / "x.mp4", "--option", "provenance.watermark=false", code=1
        ).stderr
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = told.splitlines()[-1]
    assert told.startswith("error: the clip is finished but could not be signed") and "x.unsigned.mp4" in told
    assert (tmp_path / "x.mp4").read_bytes() == b"older"
    assert streams(tmp_path / "x.unsigned.mp4") == streams(tmp_path / "bare.mp4")
    assert sorted(os.listdir(tmp_path)) == [".bare.mp4.made", "bare.mp4", "x.mp4", "x.mp4.partial", "x.unsigned.mp4"]
    again = run("render", studio / "hello.take", "-o", tmp_path / "x.mp4", "--option", "provenance.watermark=false")
    assert "render 0/" not in again.stderr and not (tmp_path / "x.mp4.partial").exists()  # signed, not drawn again
    assert streams(tmp_path / "x.mp4") == streams(tmp_path / "bare.mp4")


def test_a_sheet_of_edits_is_marked_too(studio, tmp_path):
    import cv2

    run("edit", "sheet", studio / "me.avatar", "-o", tmp_path / "edits.png")
    run("edit", "sheet", studio / "me.avatar", "-o", tmp_path / "bare.png", "--no-provenance")
    assert verified(tmp_path / "edits.png")["details"]["avatar"] == manifest.digest(studio / "me.avatar")
    pictures = [cv2.imread(str(tmp_path / name)) for name in ("edits.png", "bare.png")]
    assert noise(*pictures) > 40 and examine(tmp_path / "edits.png")[1].state == "found"
    data = bytearray((tmp_path / "edits.png").read_bytes())
    data[-40] ^= 1
    (tmp_path / "edits.png").write_bytes(data)
    assert "changed" in verified(tmp_path / "edits.png", code=1)


def test_a_report_says_that_its_pictures_are_synthetic_and_its_sheet_is_watermarked(studio, tmp_path):
    run("evaluate", studio / "smile.take", "-o", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "pictures of the avatar on this page are synthetic" in page
    sheets = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    (tmp_path / "edits.png").write_bytes(sheets[-1])
    mark, hidden = examine(tmp_path / "edits.png")
    assert mark.state == "absent" and hidden.state == "found"
    assert hidden.details["avatar"] == manifest.digest(studio / "me.avatar")[:12]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_and_hostile_files_are_told_apart(clip, tmp_path, data):
    whole = clip.read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, box(whole, "mdat")[0] + 50), st.integers(0, len(whole) - 1)))
        changed[at] = data.draw(st.sampled_from([0, 1, 127, 255, whole[at] ^ 1]))
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(changed)))]
    (tmp_path / "x.mp4").write_bytes(changed)
    answer = credentials._answer({"path": str(tmp_path / "x.mp4"), "kind": "video/mp4", "anchors": ""})
    assert answer["state"] in ("valid", "tampered", "absent")
    if answer["state"] == "valid":  # then pictures and sound are as signed
        for kind in ("moov", "mdat"):
            start, end = box(whole, kind)
            assert bytes(changed[start:end]) == whole[start:end]


def test_what_is_no_clip_is_refused_in_one_sentence(studio, tmp_path):
    for name, content in (
        ("a.mp4", b""),
        ("b.mp4", b"noise" * 99),
        ("c.mp4", b"\0\0\0\x20ftypisom" + bytes(500)),
        ("d.png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 99),
    ):
        (tmp_path / name).write_bytes(content)
        verified(tmp_path / name, code=1)
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "is not a file" in verified(path, code=1)


def test_foreign_texts_cannot_steer_a_terminal(tmp_path, monkeypatch):
    from c2pa import Builder, C2paSignerInfo, Signer

    who = signing.own_signing_key()
    text = {
        "claim_generator_info": [{"name": "\x1b[2J\x07evil\r\nerror: fake", "version": "1"}],
        "title": "\x1b[31m",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [{"action": "c2pa.created", "digitalSourceType": provenance.SOURCE + "digitalCapture"}]
                },
            }
        ],
    }
    with open(tmp_path / "dot.png", "wb") as out:
        out.write(provenance._dot())
    with open(tmp_path / "dot.png", "rb") as source, open(tmp_path / "x.png", "w+b") as out:
        signer = Signer.from_info(C2paSignerInfo(who.algorithm, who.chain, who.key, None))
        Builder(json.dumps(text)).sign(signer, "image/png", source, out)
    (tmp_path / "c2pa.py").write_text("open('ran', 'w')")  # the reader must not import from where it is started
    monkeypatch.chdir(tmp_path)
    told = run("verify", tmp_path / "x.png").stdout
    assert "of another program" in told and "names no avatar" in told
    assert all(c.isprintable() for c in told.rstrip("\n")) and not (tmp_path / "ran").exists()


def test_long_clips_are_hashed_in_blocks_and_signed_in_constant_memory(clip, studio, tmp_path):
    run("render", studio / "smile.take", "-o", studio / "bare.mp4", "--no-provenance")
    bare = (studio / "bare.mp4").read_bytes()
    long = tmp_path / "long.mp4"
    start, end = box(bare, "mdat")
    assert end == len(bare)
    extra = 96 << 20
    with open(long, "wb") as out:
        out.write(bare[:start] + struct.pack(">I", end - start + extra) + bare[start + 4 :])
        out.truncate(len(bare) + extra)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom mystudio.provenance import claim as provenance, signing\n"
        "path, who = Path(sys.argv[1]), signing.own_signing_key()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "provenance.seal_png(provenance._dot(), claim := provenance.Claim('aligned', 'a' * 64, True), who)\n"
        "before = peak()\nprovenance.finisher(path, claim, who)(path)\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, long], capture_output=True, text=True, timeout=100, check=True)
    assert int(done.stdout) < 48, done.stdout  # MB, for a clip of 96 MB
    assert examine(long)[0].state == "found"
    with open(long, "r+b") as file:
        head = file.read(100_000)
        for at in (box(head, "mdat")[1] - 1, box(head, "mdat")[0] + (70 << 20), box(head, "moov")[0] + 120):
            file.seek(at)
            old = file.read(1)
            for byte, state in ((bytes([old[0] ^ 1]), "tampered"), (old, "found")):
                file.seek(at)
                file.write(byte)
                file.flush()
                assert examine(long)[0].state == state, at


def test_a_claim_names_its_ingredients(tmp_path):
    made = provenance.definition(Claim("paste", "a" * 64, False, "d" * 64, "t" * 64, (Edit("smile", 1.0),)), "x.mp4")
    assert [(one["title"], one["relationship"], one["instance_id"]) for one in made["ingredients"]] == [
        ("avatar", "inputTo", "sha256:" + "a" * 64),
        ("driving clip", "componentOf", "sha256:" + "d" * 64),
    ]
    actions = made["assertions"][0]["data"]["actions"]
    assert [action["action"] for action in actions] == ["c2pa.created", "c2pa.edited"]
    assert "consented" in actions[0]["description"] and made["assertions"][1]["data"]["person"] == "consenting"
