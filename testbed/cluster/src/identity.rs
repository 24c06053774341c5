//! Certificates, keys and the token of a control plane, made anew for each.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};

/// The files kube-apiserver is started with, and what a client needs.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The authority that signed the server's certificate.
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Signs the tokens of service accounts.
    pub(crate) accounts_key: PathBuf,
    /// Checks them.
    pub(crate) accounts_public_key: PathBuf,
    pub(crate) tokens: PathBuf,
    /// Bearer token of a member of `system:masters`.
    pub(crate) admin_token: String,
}

/// What can go wrong while making it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    File(#[from] std::io::Error),
}

impl Identity {
    pub(crate) fn make(folder: &Path) -> Result<Identity, IdentityError> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "tidemill testbed");
        let authority = params.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(params, authority_key);

        let (key, accounts_key) = (KeyPair::generate()?, KeyPair::generate()?);
        let certificate = CertificateParams::new([
            "127.0.0.1".to_owned(),
            "localhost".to_owned(),
            "kubernetes.default.svc".to_owned(),
        ])?
        .signed_by(&key, &issuer)?
        .pem();
        // A secret of 32 random bytes; nothing but this folder ever holds it.
        let admin_token: String = KeyPair::generate()?
            .serialize_der()
            .iter()
            .rev()
            .take(32)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Identity {
            authority: write("authority.crt", &authority)?,
            certificate: write("server.crt", &certificate)?,
            key: write("server.key", &key.serialize_pem())?,
            accounts_key: write("accounts.key", &accounts_key.serialize_pem())?,
            accounts_public_key: write("accounts.pub", &accounts_key.public_key_pem())?,
            tokens: write(
                "tokens.csv",
                &format!("{admin_token},admin,admin,system:masters\n"),
            )?,
            admin_token,
        })
    }
}
