//! Session keys of one direction, and the two ways of protecting a packet with them.
//!
//! Layout of what is sealed (RFC 3711 §3.1, §3.4; RFC 7714 §8, §9):
//! SRTP is header, ciphertext, tag; SRTCP is 8 clear bytes, ciphertext, then for GCM tag and index
//! word, for AES_CM index word and tag.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::{Refusal, SrtpProfile};

/// Tag of AES-GCM.
const GCM_TAG: usize = 16;
/// Tag of HMAC-SHA1-80.
const CM_TAG: usize = 10;
/// The index word that ends or precedes the tag of SRTCP; its top bit says "encrypted".
const INDEX: usize = 4;
const ENCRYPTED: u32 = 1 << 31;
/// The part of an SRTCP packet that stays clear.
const RTCP_CLEAR: usize = 8;

/// RTP and RTCP keys of one direction.
pub(super) struct Keys {
    rtp: Cipher,
    rtcp: Cipher,
}

enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    /// Three times as large, for the few who need it.
    Cm(Box<CounterMode>),
}

struct CounterMode {
    key: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl Keys {
    /// Derives the session keys (RFC 3711 §4.3) from a master key and salt of the right lengths.
    pub(super) fn derive(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Option<Self> {
        let rtp = Cipher::derive(profile, key, salt, 0)?;
        let rtcp = Cipher::derive(profile, key, salt, 3)?;
        Some(Self { rtp, rtcp })
    }

    /// Opens an RTP packet in place; the length without the tag.
    pub(super) fn open_rtp(
        &self,
        buf: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, Refusal> {
        let length = buf.len();
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (header, sealed) =
                    buf.split_at_mut_checked(header_len).ok_or(Refusal::Malformed)?;
                if sealed.len() < GCM_TAG {
                    return Err(Refusal::Malformed);
                }
                key.open_in_place(gcm_nonce(salt, ssrc, index), Aad::from(&*header), sealed)
                    .map_err(|_| Refusal::BadTag)?;
                Ok(length - GCM_TAG)
            }
            Cipher::Cm(cipher) => {
                let end = length.checked_sub(CM_TAG).ok_or(Refusal::Malformed)?;
                let (packet, tag) = buf.split_at_mut_checked(end).ok_or(Refusal::Malformed)?;
                let wanted = cipher.rtp_tag(packet, index);
                verify_tag(&wanted, tag)?;
                let payload = packet.get_mut(header_len..).ok_or(Refusal::Malformed)?;
                cipher.apply(ssrc, index, payload).ok_or(Refusal::Malformed)?;
                Ok(end)
            }
        }
    }

    /// Seals the RTP packet `buf[start..]` in place and appends the tag.
    pub(super) fn seal_rtp(
        &self,
        buf: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Option<()> {
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = buf.get_mut(start..)?.split_at_mut_checked(header_len)?;
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag =
                    key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload).ok()?;
                buf.extend_from_slice(tag.as_ref());
            }
            Cipher::Cm(cipher) => {
                let packet = buf.get_mut(start..)?;
                cipher.apply(ssrc, index, packet.get_mut(header_len..)?)?;
                let tag = cipher.rtp_tag(packet, index);
                buf.extend_from_slice(tag.as_ref().first_chunk::<CM_TAG>()?);
            }
        }
        Some(())
    }

    /// The SRTCP index of a packet; `None` when it is too short or says that it is not encrypted.
    pub(super) fn rtcp_index(&self, buf: &[u8]) -> Option<u32> {
        let word = match &self.rtcp {
            Cipher::Gcm { .. } => buf.last_chunk::<INDEX>()?,
            Cipher::Cm(_) => buf.get(..buf.len().checked_sub(CM_TAG)?)?.last_chunk::<INDEX>()?,
        };
        let word = u32::from_be_bytes(*word);
        (word & ENCRYPTED != 0).then_some(word & !ENCRYPTED)
    }

    /// Opens an RTCP packet in place; its plain length.
    pub(super) fn open_rtcp(
        &self,
        buf: &mut [u8],
        ssrc: u32,
        index: u32,
    ) -> Result<usize, Refusal> {
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let end = buf.len().checked_sub(INDEX).ok_or(Refusal::Malformed)?;
                let aad = gcm_rtcp_aad(buf, index).ok_or(Refusal::Malformed)?;
                let sealed = buf.get_mut(RTCP_CLEAR..end).ok_or(Refusal::Malformed)?;
                if sealed.len() < GCM_TAG {
                    return Err(Refusal::Malformed);
                }
                key.open_in_place(gcm_nonce(salt, ssrc, u64::from(index)), Aad::from(aad), sealed)
                    .map_err(|_| Refusal::BadTag)?;
                Ok(end - GCM_TAG)
            }
            Cipher::Cm(cipher) => {
                let end = buf.len().checked_sub(CM_TAG).ok_or(Refusal::Malformed)?;
                let (packet, tag) = buf.split_at_mut_checked(end).ok_or(Refusal::Malformed)?;
                verify_tag(&hmac::sign(&cipher.authentication, packet), tag)?;
                let end = end.checked_sub(INDEX).ok_or(Refusal::Malformed)?;
                let body = packet.get_mut(RTCP_CLEAR..end).ok_or(Refusal::Malformed)?;
                cipher.apply(ssrc, u64::from(index), body).ok_or(Refusal::Malformed)?;
                Ok(end)
            }
        }
    }

    /// Seals the RTCP packet `buf[start..]` in place and appends tag and index.
    pub(super) fn seal_rtcp(
        &self,
        buf: &mut Vec<u8>,
        start: usize,
        ssrc: u32,
        index: u32,
    ) -> Option<()> {
        let word = (index | ENCRYPTED).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let packet = buf.get_mut(start..)?;
                let aad = gcm_rtcp_aad(packet, index)?;
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                let body = packet.get_mut(RTCP_CLEAR..)?;
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body).ok()?;
                buf.extend_from_slice(tag.as_ref());
                buf.extend_from_slice(&word);
            }
            Cipher::Cm(cipher) => {
                let body = buf.get_mut(start..)?.get_mut(RTCP_CLEAR..)?;
                cipher.apply(ssrc, u64::from(index), body)?;
                buf.extend_from_slice(&word);
                let tag = hmac::sign(&cipher.authentication, buf.get(start..)?);
                buf.extend_from_slice(tag.as_ref().first_chunk::<CM_TAG>()?);
            }
        }
        Some(())
    }
}

impl Cipher {
    /// `label` is that of the encryption key: 0 for RTP, 3 for RTCP; authentication key and salt
    /// have the next two.
    fn derive(profile: SrtpProfile, master: &[u8], salt: &[u8], label: u8) -> Option<Self> {
        let stream = Derivation::new(master, salt)?;
        match profile {
            SrtpProfile::AeadAes128Gcm => {
                let key = UnboundKey::new(&AES_128_GCM, &stream.take::<16>(label)?).ok()?;
                Some(Self::Gcm { key: LessSafeKey::new(key), salt: stream.take(label + 2)? })
            }
            SrtpProfile::AeadAes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, &stream.take::<32>(label)?).ok()?;
                Some(Self::Gcm { key: LessSafeKey::new(key), salt: stream.take(label + 2)? })
            }
            SrtpProfile::AesCm128HmacSha1_80 => Some(Self::Cm(Box::new(CounterMode {
                key: counter_mode(&stream.take::<16>(label)?)?,
                salt: stream.take(label + 2)?,
                authentication: hmac::Key::new(
                    hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    &stream.take::<20>(label + 1)?,
                ),
            }))),
            SrtpProfile::Clear => None,
        }
    }
}

/// The key derivation of RFC 3711 §4.3.3 with a derivation rate of zero: AES in counter mode under
/// the master key, from the master salt with the label mixed in. A GCM salt of 96 bits is filled up
/// with zeros (RFC 7714 §11).
struct Derivation {
    master: EncryptingKey,
    salt: [u8; 16],
}

impl Derivation {
    fn new(master: &[u8], salt: &[u8]) -> Option<Self> {
        let mut padded = [0; 16];
        padded.get_mut(..salt.len())?.copy_from_slice(salt);
        Some(Self { master: counter_mode(master)?, salt: padded })
    }

    fn take<const N: usize>(&self, label: u8) -> Option<[u8; N]> {
        let mut iv = self.salt;
        let [_, _, _, _, _, _, _, labelled, ..] = &mut iv;
        *labelled ^= label;
        let mut out = [0; N];
        self.master.less_safe_encrypt(&mut out, EncryptionContext::Iv128(iv.into())).ok()?;
        Some(out)
    }
}

fn counter_mode(key: &[u8]) -> Option<EncryptingKey> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?).ok()
}

/// RFC 7714 §8.1 and §9.1: two zero bytes, SSRC, then the index in 48 bits (for RTP roll-over
/// counter and sequence number), all mixed with the salt.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    let [_, _, _, _, packed @ ..] = (u128::from(ssrc) << 48 | u128::from(index)).to_be_bytes();
    for (byte, with) in nonce.iter_mut().zip(packed) {
        *byte ^= with;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 7714 §9.2: the clear part and the index word.
fn gcm_rtcp_aad(packet: &[u8], index: u32) -> Option<[u8; RTCP_CLEAR + INDEX]> {
    let mut aad = [0; RTCP_CLEAR + INDEX];
    let (clear, word) = aad.split_at_mut(RTCP_CLEAR);
    clear.copy_from_slice(packet.get(..RTCP_CLEAR)?);
    word.copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
    Some(aad)
}

impl CounterMode {
    /// RFC 3711 §4.1.1: the key stream starts at salt, SSRC and index, two zero bytes below them.
    fn apply(&self, ssrc: u32, index: u64, body: &mut [u8]) -> Option<()> {
        let mut iv = (u128::from(ssrc) << 64 | u128::from(index) << 16).to_be_bytes();
        for (byte, with) in iv.iter_mut().zip(self.salt) {
            *byte ^= with;
        }
        self.key.less_safe_encrypt(body, EncryptionContext::Iv128(iv.into())).ok()?;
        Some(())
    }

    /// RFC 3711 §4.2: header, ciphertext and roll-over counter.
    fn rtp_tag(&self, packet: &[u8], index: u64) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(packet);
        let [_, _, roll_over @ .., _, _] = index.to_be_bytes();
        context.update(&roll_over);
        context.sign()
    }
}

fn verify_tag(wanted: &hmac::Tag, tag: &[u8]) -> Result<(), Refusal> {
    let wanted = wanted.as_ref().get(..CM_TAG).ok_or(Refusal::Malformed)?;
    verify_slices_are_equal(wanted, tag).map_err(|_| Refusal::BadTag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(char::is_whitespace, "")).unwrap()
    }

    /// RFC 3711 §B.2.
    #[test]
    fn the_counter_mode_key_stream_is_that_of_rfc_3711() {
        let cipher = CounterMode {
            key: counter_mode(&bytes("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap(),
            salt: *bytes("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").first_chunk().unwrap(),
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[]),
        };
        let mut stream = vec![0; 0xFF02 * 16];
        cipher.apply(0, 0, &mut stream).unwrap();
        let first = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
                     41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(stream[..48], bytes(first));
        let last = "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
                    6A2CC3787889374FBEB4C81B17BA6C44";
        assert_eq!(stream[0xFEFF * 16..], bytes(last));
    }

    /// RFC 3711 §B.3.
    #[test]
    fn session_keys_are_derived_as_in_rfc_3711() {
        let master = bytes("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = bytes("0EC675AD498AFEEBB6960B3AABE6");
        let stream = Derivation::new(&master, &salt).unwrap();
        assert_eq!(stream.take::<16>(0).unwrap()[..], bytes("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(stream.take::<14>(2).unwrap()[..], bytes("30CBBC08863D8C85D49DB34A9AE1"));
        let authentication = "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE
                              E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25
                              6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2DC68";
        assert_eq!(stream.take::<94>(1).unwrap()[..], bytes(authentication)[..94]);
    }

    fn gcm(key: &[u8]) -> Cipher {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        Cipher::Gcm { key, salt: *b"Quid pro quo" }
    }

    fn keys(key: &[u8]) -> Keys {
        Keys { rtp: gcm(key), rtcp: gcm(key) }
    }

    /// RFC 7714 §16.1 and §16.2.
    #[test]
    fn rtp_is_sealed_as_in_rfc_7714() {
        let header = bytes("8040f17b 8041f8d3 5501a0b2");
        let plain = [&header, &b"Gallia est omnis divisa in partes tres"[..]].concat();
        let key: Vec<u8> = (0..32).collect();
        let cases = [
            (
                16,
                "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833
                 899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                32,
                "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b
                 7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ];
        for (length, sealed) in cases {
            let keys = keys(&key[..length]);
            let mut packet = plain.clone();
            keys.seal_rtp(&mut packet, 0, 12, 0x5501_A0B2, 0xF17B).unwrap();
            assert_eq!(packet, [&header[..], &bytes(sealed)].concat());
            assert_eq!(keys.open_rtp(&mut packet, 12, 0x5501_A0B2, 0xF17B), Ok(plain.len()));
            assert_eq!(packet[..plain.len()], plain);
        }
    }

    /// RFC 7714 §17.1 and §17.2.
    #[test]
    fn rtcp_is_sealed_as_in_rfc_7714() {
        let plain = bytes(
            "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
             deadbeef deadbeef deadbeef deadbeef deadbeef",
        );
        let key: Vec<u8> = (0..32).collect();
        let cases = [
            (
                16,
                "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
                 c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872
                 45d9eade 800005d4",
            ),
            (
                32,
                "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50
                 a2eaa5c1 110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c
                 b26ac3be 800005d4",
            ),
        ];
        for (length, sealed) in cases {
            let keys = keys(&key[..length]);
            let mut packet = plain.clone();
            keys.seal_rtcp(&mut packet, 0, 0x4D61_7273, 0x5D4).unwrap();
            assert_eq!(packet, bytes(sealed));
            assert_eq!(keys.rtcp_index(&packet), Some(0x5D4));
            assert_eq!(keys.open_rtcp(&mut packet, 0x4D61_7273, 0x5D4), Ok(plain.len()));
            assert_eq!(packet[..plain.len()], plain);
        }
    }
}
