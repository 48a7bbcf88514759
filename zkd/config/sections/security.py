"""Keys of TLS and of authentication (spec sections 5 and 6)."""

# ruff: noqa: RUF009  (setting() gives a dataclass field; it is no mutable default)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zkd.config.key import Action, group, pattern, setting
from zkd.config.kinds import FLAG, INT, MS, PATH, SECRET, TEXT, WORDS, choice

_STORE = choice("", "JKS", "PEM", "PKCS12", "BCFKS", aliases={"p12": "PKCS12"})
_STORE_NOTE = "PEM, PKCS12 and JKS are read; BCFKS is refused with the command that converts it."


@dataclass(frozen=True, init=False, repr=False, eq=False)
class StoreSettings:
    """Where a key store and a trust store lie. An empty type: by the file's ending."""

    key_store_location: Path | None = setting(
        "keyStore.location",
        PATH,
        None,
        "Key and certificates of this server.",
        default_text="none",
        reloadable=True,
    )
    key_store_password: str = setting(
        "keyStore.password",
        SECRET,
        "",
        "Password of the key store.",
        secret=True,
    )
    key_store_password_path: Path | None = setting(
        "keyStore.passwordPath",
        PATH,
        None,
        "File that holds the password of the key store.",
        default_text="none",
    )
    key_store_type: str = setting(
        "keyStore.type",
        _STORE,
        "",
        "Format of the key store.",
        default_text="by the file's ending",
        note=_STORE_NOTE,
    )
    trust_store_location: Path | None = setting(
        "trustStore.location",
        PATH,
        None,
        "Certificates that are trusted.",
        default_text="none",
        reloadable=True,
    )
    trust_store_password: str = setting(
        "trustStore.password",
        SECRET,
        "",
        "Password of the trust store.",
        secret=True,
    )
    trust_store_password_path: Path | None = setting(
        "trustStore.passwordPath",
        PATH,
        None,
        "File that holds the password of the trust store.",
        default_text="none",
    )
    trust_store_type: str = setting(
        "trustStore.type",
        _STORE,
        "",
        "Format of the trust store.",
        default_text="by the file's ending",
        note=_STORE_NOTE,
    )
    enabled_protocols: tuple[str, ...] = setting(
        "enabledProtocols",
        WORDS,
        (),
        "TLS versions that are accepted.",
        default_text="protocol, or TLSv1.3,TLSv1.2",
    )
    ciphersuites: tuple[str, ...] = setting(
        "ciphersuites",
        WORDS,
        (),
        "Cipher suites, by their IANA names.",
        default_text="OpenSSL's",
        note="Names are translated for OpenSSL; unknown ones warn.",
    )


@dataclass(frozen=True)
class TlsSettings(StoreSettings):
    """One of the two sets of TLS keys: of the client port, or between servers."""

    protocol: str = setting(
        "protocol",
        choice("TLS", "TLSv1.2", "TLSv1.3"),
        "TLSv1.3",
        "Preferred TLS version.",
    )
    client_auth: str = setting(
        "clientAuth",
        choice("none", "want", "need"),
        "need",
        "Whether the other side must show a certificate.",
    )
    hostname_verification: bool = setting(
        "hostnameVerification",
        FLAG,
        True,
        "Compare the other side's name with its certificate.",
    )
    client_hostname_verification: bool | None = setting(
        "clientHostnameVerification",
        FLAG,
        None,
        "The same for the side that connected.",
        default_text="true between servers, else false",
    )
    allow_reverse_dns_lookup: bool = setting(
        "allowReverseDnsLookup",
        FLAG,
        False,
        "Look the other side's name up by its address.",
    )
    crl: bool = setting(
        "crl",
        FLAG,
        False,
        "Check certificates against revocation lists.",
        note="The lists lie in the trust store's PEM file.",
    )
    ocsp: bool = setting(
        "ocsp",
        FLAG,
        False,
        "Ask the issuer whether a certificate is revoked.",
        action=Action.IGNORE,
        note="Revocation is checked with lists: see crl.",
    )
    context_supplier_class: str = setting(
        "context.supplier.class",
        TEXT,
        "",
        "Java class that makes the TLS context.",
        action=Action.REFUSE,
        note="A zkd plugin can supply the TLS context.",
    )
    handshake_detection_timeout: int = setting(
        "handshakeDetectionTimeoutMillis",
        MS,
        5000,
        "How long the first bytes may take on a port for both TLS and plain.",
        minimum=1,
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class SecuritySettings:
    """TLS and authentication of clients."""

    client_tls: TlsSettings = group(TlsSettings, "ssl.", "TLS of the client port")
    quorum_tls: TlsSettings = group(TlsSettings, "ssl.quorum.", "TLS between servers")
    ssl_auth_provider: str = setting(
        "ssl.authProvider",
        TEXT,
        "x509",
        "Authentication scheme of client certificates.",
        action=Action.MAP,
        note="The name of an authentication plugin.",
    )
    client_cert_reload: bool = setting(
        "client.certReload",
        FLAG,
        False,
        "Read changed key and trust stores again.",
        note="The files are always watched.",
    )
    client_port_unification: bool = setting(
        "client.portUnification",
        FLAG,
        False,
        "TLS and plain clients on one port.",
    )
    outstanding_handshake_limit: int = setting(
        "netty.server.outstandingHandshake.limit",
        INT,
        -1,
        "Most TLS handshakes at a time; -1: no limit.",
        special=-1,
        minimum=0,
        reloadable=True,
    )
    early_drop_secure_connection_handshakes: bool = setting(
        "netty.server.earlyDropSecureConnectionHandshakes",
        FLAG,
        False,
        "Refuse a connection before its handshake if the server cannot serve it.",
    )
    fips_mode: bool = setting(
        "fips-mode",
        FLAG,
        True,
        "Use approved algorithms only.",
        note="Disables DIGEST-MD5; ACLs with SHA-1 digests are flagged.",
    )
    auth_providers: Mapping[str, str] = pattern(
        "authProvider.*",
        TEXT,
        "An authentication provider, by Java class or plugin.",
        default_text="none: digest and ip are always there",
        action=Action.MAP,
        note="Classes of Apache ZooKeeper name the built-in scheme; plugin:NAME is a zkd plugin; "
        "other classes are refused.",
    )
    digest_provider_enabled: bool = setting(
        "DigestAuthenticationProvider.enabled",
        FLAG,
        True,
        "The scheme digest.",
    )
    super_digest: str = setting(
        "DigestAuthenticationProvider.superDigest",
        SECRET,
        "",
        "user:hash of the super user of the scheme digest.",
        secret=True,
    )
    digest_algorithm: str = setting(
        "DigestAuthenticationProvider.digestAlg",
        TEXT,
        "SHA1",
        "Hash of the scheme digest.",
    )
    x509_super_user: str = setting(
        "X509AuthenticationProvider.superUser",
        TEXT,
        "",
        "Subject of the super certificate.",
        default_text="none",
    )
    super_user: str = setting(
        "superUser",
        TEXT,
        "",
        "SASL id of the super user.",
        default_text="none",
    )
    super_users: Mapping[str, str] = pattern(
        "superUser.*",
        TEXT,
        "More SASL ids of super users.",
        default_text="none",
    )
    sasl_super_password: str = setting(
        "SASLAuthenticationProvider.superPassword",
        SECRET,
        "",
        "Password of the user super of DIGEST-MD5.",
        secret=True,
    )
    let_any_sasl_user_do: str = setting(
        "letAnySaslUserDoX",
        TEXT,
        "",
        "ACL id that any SASL user matches.",
        default_text="none",
    )
    allow_sasl_failed_clients: bool = setting(
        "allowSaslFailedClients",
        FLAG,
        False,
        "Keep clients whose SASL login failed.",
    )
    session_require_client_sasl_auth: bool = setting(
        "sessionRequireClientSASLAuth",
        FLAG,
        False,
        "Clients must log in with SASL.",
    )
    enforce_auth_enabled: bool = setting(
        "enforce.auth.enabled",
        FLAG,
        False,
        "Clients must log in with enforce.auth.schemes.",
    )
    enforce_auth_schemes: tuple[str, ...] = setting(
        "enforce.auth.schemes",
        WORDS,
        (),
        "Schemes of which a client must use one.",
        default_text="none",
    )
    ensemble_auth_names: tuple[str, ...] = setting(
        "ensembleAuthName",
        WORDS,
        (),
        "Names that a client may expect of this ensemble.",
        default_text="any",
    )
    ip_use_x_forwarded_for: bool = setting(
        "IPAuthenticationProvider.usexforwardedfor",
        FLAG,
        False,
        "Believe the X-Forwarded-For header at the admin server.",
        note="Only from trusted.proxies.",
    )
    kerberos_remove_host_from_principal: bool = setting(
        "kerberos.removeHostFromPrincipal",
        FLAG,
        False,
        "Shorten principals by the host.",
    )
    kerberos_remove_realm_from_principal: bool = setting(
        "kerberos.removeRealmFromPrincipal",
        FLAG,
        False,
        "Shorten principals by the realm.",
    )
    security_auth_to_local: str = setting(
        "security.auth_to_local",
        TEXT,
        "",
        "Rules that shorten Kerberos principals.",
        default_text="DEFAULT",
        note="Needs a GSSAPI plugin.",
    )
    login_config: Path | None = setting(
        "java.security.auth.login.config",
        PATH,
        None,
        "JAAS file with the users of DIGEST-MD5.",
        default_text="none",
        action=Action.MAP,
        note="The sections Server, QuorumServer and QuorumLearner are read: users of "
        "DigestLoginModule, key table and principal of Krb5LoginModule.",
    )
    sasl_server_config: str = setting(
        "sasl.serverconfig",
        TEXT,
        "Server",
        "Section of the JAAS file for clients.",
        action=Action.MAP,
        note="Names the section that is read.",
    )
