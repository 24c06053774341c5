//! Certificates, keys and tokens of a cluster, made anew for each.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use std::path::{Path, PathBuf};

/// Whom the API server knows by a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum User {
    /// Has every right.
    Admin,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
}

impl User {
    pub(crate) const ALL: [User; 5] = [
        User::Admin,
        User::ControllerManager,
        User::Scheduler,
        User::Kubelet,
        User::Proxy,
    ];

    /// Name and group; Kubernetes brings rules for each.
    fn name(self) -> (&'static str, &'static str) {
        match self {
            User::Admin => ("admin", "system:masters"),
            User::ControllerManager => ("system:kube-controller-manager", ""),
            User::Scheduler => ("system:kube-scheduler", ""),
            // The node's name is `node`.
            User::Kubelet => ("system:node:node", "system:nodes"),
            User::Proxy => ("system:kube-proxy", ""),
        }
    }
}

/// The files kube-apiserver is started with, and what its clients need.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The authority that signed the certificates.
    pub(crate) authority: PathBuf,
    pub(crate) server: Certificate,
    /// What the API server shows to kubelet.
    pub(crate) kubelet_client: Certificate,
    /// Signs the tokens of service accounts.
    pub(crate) accounts_key: PathBuf,
    /// Checks them.
    pub(crate) accounts_public_key: PathBuf,
    /// Users by token.
    pub(crate) tokens_file: PathBuf,
    tokens: [String; User::ALL.len()],
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
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
    /// `names` are the API server's, as host names or addresses.
    pub(crate) fn make(folder: &Path, names: &[&str]) -> Result<Identity, IdentityError> {
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
        let sign = |name: &str, params: CertificateParams| -> Result<Certificate, IdentityError> {
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok(Certificate {
                certificate: write(&format!("{name}.crt"), &certificate)?,
                key: write(&format!("{name}.key"), &key.serialize_pem())?,
            })
        };

        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let server = sign("server", CertificateParams::new(names)?)?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "kube-apiserver");
        name.push(DnType::OrganizationName, "system:masters");
        let kubelet_client = sign("kubelet-client", params)?;

        let accounts_key = KeyPair::generate()?;
        let mut tokens = [const { String::new() }; User::ALL.len()];
        let mut lines = String::new();
        for (user, token) in User::ALL.into_iter().zip(&mut tokens) {
            *token = secret()?;
            let (name, group) = user.name();
            lines.push_str(&format!("{token},{name},{name},\"{group}\"\n"));
        }
        Ok(Identity {
            authority: write("authority.crt", &authority)?,
            server,
            kubelet_client,
            accounts_key: write("accounts.key", &accounts_key.serialize_pem())?,
            accounts_public_key: write("accounts.pub", &accounts_key.public_key_pem())?,
            tokens_file: write("tokens.csv", &lines)?,
            tokens,
        })
    }

    /// The bearer token of a user.
    pub(crate) fn token(&self, user: User) -> &str {
        &self.tokens[user as usize]
    }
}

/// 32 random bytes; nothing but the cluster's folder ever holds them.
fn secret() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?.serialize_der();
    let bytes = key.iter().rev().take(32);
    Ok(bytes.map(|byte| format!("{byte:02x}")).collect())
}
