"""Signing keys and certificates: a pair made at first use and kept in the user's folder, or the user's own files.

C2PA requires a signing certificate that another certificate issued. At first use both are made. The issuer's private
key is deleted at once, so nobody can issue a second certificate under that name.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mystudio.bases import user_folder
from mystudio.errors import SigningFailed, reason
from selfscan.io.text import decoded

YEARS = 10  # validity of the certificates made here
MAX_PEM_BYTES = 1 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SigningKey:
    """A private key and its certificates, the signing one first."""

    key: bytes  # PEM, PKCS 8
    chain: bytes  # PEM
    algorithm: str  # C2PA's name of the algorithm: es256, ...
    name: str  # common name of the signing certificate


def key_file() -> Path | None:
    """Return the path of this user's key, ``keys/signing.pem`` beside the bases; None if there is no home folder."""
    folder = user_folder()
    if folder is None or not os.environ.get("MYSTUDIO_HOME") and not Path.home().is_dir():
        return None
    return folder.parent / "keys" / "signing.pem"


def own_signing_key() -> SigningKey:
    """Return this user's key, made at first use; without a folder to store it, a key for this run only.

    Raises: SigningFailed: the stored key is damaged or has expired.
    """
    file = key_file()
    try:
        if file is not None and not file.exists():
            _keep(file, make())
        if file is not None:
            return _parse(file, file)
        reason = "this user has no home"
    except OSError as error:
        reason = f"{error.filename or file}: {error.strerror or error}"
    log.warning(
        "there is no folder to keep a signing key in (%s): this result is signed with a key that is used once; set "
        "MYSTUDIO_HOME to a folder to sign every result with the same key",
        reason,
    )
    return _signing_key(make())


def own_issuer() -> bytes:
    """Return the certificate (PEM) of the issuer of this user's key; empty if it is missing or cannot be read."""
    file = key_file()
    try:
        if file is not None and file.is_file():
            return certificates(file.read_bytes())[-1]
    except (OSError, ValueError, IndexError):
        pass
    return b""


def read_signing_key(key: Path, chain: Path) -> SigningKey:
    """Read the user's own key and certificate chain.

    Args:
        key: PEM file of an unencrypted private key (EC, Ed25519 or RSA).
        chain: PEM file of the key's certificates, the signing certificate first.
    Raises: SigningFailed: a file is missing, not PEM, encrypted or expired, or key and certificate do not match.
    """
    for path in (key, chain):
        if not Path(path).is_file() or Path(path).stat().st_size > MAX_PEM_BYTES:
            raise SigningFailed(f"{path} is no PEM file; give your private key and your certificate chain")
    return _parse(Path(key), Path(chain))


def make() -> bytes:
    """Make a P-256 key, its certificate and its issuer's certificate (PEM); the issuer's key is not kept."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mystudio (self-signed)"),
                x509.NameAttribute(NameOID.COMMON_NAME, text),
            ]
        )

    key, issuer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    tag = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:12]
    issuer, now = name(f"issuer of mystudio key {tag}"), datetime.now(timezone.utc)

    def certificate(subject, public_key, ca: bool, *extensions) -> bytes:
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = (
            x509.CertificateBuilder(
                issuer,
                subject,
                public_key,
                x509.random_serial_number(),
                now - timedelta(days=1),
                now + timedelta(days=365.25 * YEARS),
            )
            .add_extension(x509.BasicConstraints(ca, 0 if ca else None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, False)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    signing = certificate(
        name(f"mystudio key {tag}"),
        key.public_key(),
        False,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + signing + certificate(issuer, issuer_key.public_key(), True)


def _keep(file: Path, content: bytes) -> None:
    """Write the key file, readable by its owner only; if two processes do so at once, the first file stays."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(handle)
        os.link(new, file)
    except FileExistsError:
        pass
    finally:
        new.unlink(missing_ok=True)


def _parse(key: Path, chain: Path) -> SigningKey:
    try:
        private = _pem(key)
        return _signing_key(private if key == chain else private + b"\n" + _pem(chain))
    except OSError as error:
        raise SigningFailed(f"{error.filename} cannot be read ({error.strerror}); correct its permissions") from None
    except ValueError as error:
        advice = "give another key and chain" if key != chain else "move it away and a new key will be made"
        raise SigningFailed(
            f"{key} cannot sign ({error}); {advice}, or turn marking off with --no-provenance"
        ) from None


def _pem(path: Path) -> bytes:
    """Return the bytes of a PEM file in ASCII, whatever encoding an editor gave it; other files as they are."""
    content = path.read_bytes()
    try:
        return decoded(content).encode()
    except ValueError:
        return content


def _signing_key(content: bytes) -> SigningKey:
    """Parse a key and its certificates (PEM). Raises ValueError: what is wrong, in words."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import NameOID

    try:
        key = serialization.load_pem_private_key(content, None)
    except TypeError:
        raise ValueError("the private key is encrypted; expected one without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected an unencrypted private key as PEM, of a supported kind") from None
    blocks = certificates(content)
    if not blocks:
        raise ValueError("expected a certificate as PEM")
    signing = x509.load_pem_x509_certificate(blocks[0])
    try:
        own, begin, end = signing.public_key(), signing.not_valid_before_utc, signing.not_valid_after_utc
        names = signing.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception:  # of many types, for fields that are damaged or of an unknown kind
        raise ValueError("expected a certificate with a key of a supported kind, dates and a name") from None
    if own != key.public_key():
        raise ValueError("the key does not match the first certificate")
    if not begin <= datetime.now(timezone.utc) <= end:
        raise ValueError(
            f"the certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d} only; "
            f"this machine's clock says {datetime.now(timezone.utc):%Y-%m-%d}"
        )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningKey(private, b"".join(blocks), _algorithm(key), str(names[0].value) if names else "")


def certificates(content: bytes) -> list[bytes]:
    """Return every certificate in a PEM text, each as PEM. Raises ValueError: one cannot be parsed."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if b"-----BEGIN CERTIFICATE-----" not in content:
        return []
    try:
        return [found.public_bytes(Encoding.PEM) for found in x509.load_pem_x509_certificates(content)]
    except Exception as error:  # of many types, for versions and fields that do not exist
        raise ValueError(f"expected whole certificates as PEM ({reason(error)})") from error


def _algorithm(key) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    raise ValueError("expected a key of P-256, P-384, P-521, Ed25519, or RSA of at least 2048 bits")
