"""Certificates for tests: an authority, and a key that it has certified."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_USES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
_NO = dict.fromkeys([*_USES.split(), "encipher_only", "decipher_only"], False)


@dataclass(frozen=True)
class Certified:
    """Files in PEM: a private key, its certificate with that of the authority, and the latter alone."""

    key: Path
    certificate: Path
    anchor: Path

    @property
    def options(self) -> list[str]:
        return ["--c2pa_key", str(self.key), "--c2pa_certificate", str(self.certificate)]


def certify(
    folder: Path,
    kind: str = "ec",
    *,
    days: int = 365,
    usage=ExtendedKeyUsageOID.EMAIL_PROTECTION,
    password: bytes | None = None,
) -> Certified:
    """Writes a key and its certificate; with negative `days`, one that has expired.

    Args:
      kind: "ec", "ec384", "ec521", "ed25519" or "rsa".
      usage: what the certificate allows.
      password: of the key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority, root_name = ec.generate_private_key(ec.SECP256R1()), _name("Authority")
    root = _certificate(root_name, root_name, authority.public_key(), 3650).add_extension(
        x509.BasicConstraints(True, None), True
    )
    root = root.add_extension(x509.KeyUsage(**_NO | {"key_cert_sign": True, "crl_sign": True}), True)
    root = root.sign(authority, hashes.SHA256())
    key = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ec384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ec521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    own = _certificate(_name("Signer"), root_name, key.public_key(), days)
    own = own.add_extension(x509.BasicConstraints(False, None), True)
    own = own.add_extension(x509.KeyUsage(**_NO | {"digital_signature": True}), True)
    own = own.add_extension(x509.ExtendedKeyUsage([usage]), False)
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    own = own.add_extension(authority_id, False).sign(authority, hashes.SHA256())
    pem = serialization.Encoding.PEM
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    files = Certified(folder / "key.pem", folder / "certificate.pem", folder / "anchor.pem")
    forms = serialization.PrivateFormat
    form = forms.TraditionalOpenSSL if kind.startswith("ec") else forms.PKCS8
    files.key.write_bytes(key.private_bytes(pem, form, hidden))
    files.certificate.write_bytes(own.public_bytes(pem) + root.public_bytes(pem))
    files.anchor.write_bytes(root.public_bytes(pem))
    return files


def _name(common: str) -> x509.Name:
    pairs = ((NameOID.ORGANIZATION_NAME, "City Archive"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])


def _certificate(subject: x509.Name, issuer: x509.Name, public, days: int) -> x509.CertificateBuilder:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
    builder = builder.not_valid_before(now - (2 if days > 0 else 9) * day).not_valid_after(now + days * day)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
