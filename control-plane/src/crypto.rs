//! The one cryptography under TLS.
//!
//! rustls takes it from the process, and more than one may be linked in; with two to choose from it
//! refuses to choose. Whoever opens a TLS connection first would find out, so it is decided at start.

/// Makes aws-lc-rs the process's TLS cryptography. Asking again changes nothing.
pub fn use_one() {
    // An error says that there is one already: this one, since nothing else installs any.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_one_however_often_it_is_asked() {
        super::use_one();
        super::use_one();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
