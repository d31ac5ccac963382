//! The kinds of public keys, and which of them prove nothing here.
//!
//! - Owns: what a key is called, and which ones ring can do nothing with.
//! - Leaves to others: checking signatures (`verify`, by webpki), the sentence around the words (`words`).
//! - Always true: it only explains what has failed already; no signature counts because of it.

use std::ops::RangeInclusive;

use super::{Certificate, Elements, OBJECT_IDENTIFIER, SEQUENCE, inside};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

// RFC 3279, RFC 4055, RFC 5480, RFC 8410.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P_256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P_384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P_521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const ED448: &[u8] = &[0x2b, 0x65, 0x71];

/// Bits of an RSA key that ring takes.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

impl Certificate<'_> {
    /// Of what kind its key is, if nothing can be checked with it here: goes on after "it has a key ".
    pub(in super::super) fn unusable_key(&self) -> Option<String> {
        let mut parts = Elements(inside(self.public_key, SEQUENCE)?);
        let mut algorithm = Elements(parts.sequence()?);
        let (_, kind) = algorithm.next().filter(|(tag, _)| *tag == OBJECT_IDENTIFIER)?;
        let known = match kind {
            RSA => return unusable_rsa(parts.next()?),
            ELLIPTIC => match algorithm.next()? {
                (OBJECT_IDENTIFIER, P_256 | P_384) => return None,
                (OBJECT_IDENTIFIER, P_521) => "of P-521",
                _ => "of a curve that is not known here",
            },
            ED25519 => return None,
            ED448 => "of Ed448",
            RSA_PSS => "of RSA for PSS alone",
            _ => "of a kind that is not known here",
        };
        Some(known.to_owned())
    }
}

fn unusable_rsa((tag, key): (u8, &[u8])) -> Option<String> {
    // The first octet of a bit string tells how many bits of the last one are none.
    let (_, key) = key.split_first().filter(|_| tag == BIT_STRING)?;
    let modulus = inside(inside(key, SEQUENCE)?, INTEGER)?;
    let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
    let modulus = modulus.get(zeros..)?;
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    (!RSA_BITS.contains(&bits)).then(|| format!("of RSA with {bits} bits"))
}
