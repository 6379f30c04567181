//! SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.

use std::num::NonZeroU32;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{
    digest::{SHA256, digest},
    hmac, pbkdf2,
    rand::{SecureRandom as _, SystemRandom},
};

use super::{Trouble, apart};

/// One login.
pub(super) struct Scram {
    password: Vec<u8>,
    nonce: String,
    /// What the server has to prove in the end.
    expected: Option<Vec<u8>>,
}

impl Scram {
    pub(super) fn new(password: Vec<u8>) -> Result<Self, Trouble> {
        let mut random = [0; 18];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Trouble::Ours("no random numbers for a login".to_owned()))?;
        Ok(Self { password, nonce: BASE64_STANDARD.encode(random), expected: None })
    }

    /// The user is who the connection already names.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The answer to the server's first message.
    pub(super) async fn answer(&mut self, challenge: &[u8]) -> Result<String, Trouble> {
        let broken = || Trouble::Backend("the server's SCRAM challenge is broken".to_owned());
        let challenge = std::str::from_utf8(challenge).map_err(|_| broken())?;
        let attribute = |name: &str| {
            challenge
                .split(',')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(broken)
        };
        let nonce = attribute("r")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(broken());
        }
        let salt = BASE64_STANDARD.decode(attribute("s")?).map_err(|_| broken())?;
        let iterations = attribute("i")?.parse::<NonZeroU32>().map_err(|_| broken())?;
        if iterations > MAX_ITERATIONS {
            return Err(Trouble::Backend(format!("the server wants {iterations} iterations of SCRAM")));
        }
        let password = self.password.clone();
        // As long as the server wants: other checks shall not wait for it.
        let salted = apart(move || {
            let mut salted = [0; 32];
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, &password, &mut salted);
            Ok(salted)
        })
        .await?;
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest(&SHA256, client_key.as_ref());
        let last_bare = format!("c=biws,r={nonce}");
        let message = format!("{},{challenge},{last_bare}", self.first_bare());
        let signature = sign(stored_key.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        self.expected = Some(sign(server_key.as_ref(), message.as_bytes()).as_ref().to_vec());
        Ok(format!("{last_bare},p={}", BASE64_STANDARD.encode(proof)))
    }

    /// Whether the server knows the password too.
    pub(super) fn verify(&self, last: &[u8]) -> Result<(), Trouble> {
        let proof = last.strip_prefix(b"v=").and_then(|proof| BASE64_STANDARD.decode(proof).ok());
        if proof.is_some() && proof == self.expected {
            return Ok(());
        }
        Err(Trouble::Backend("the server does not know the password".to_owned()))
    }
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// PostgreSQL's default is 4,096. More than this would be 50 ms of work at a hostile server's word.
const MAX_ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3, but for the user's name, which it has and PostgreSQL leaves out.
    fn exchange() -> Scram {
        Scram { password: b"pencil".to_vec(), nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(), expected: None }
    }

    const CHALLENGE: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[tokio::test]
    async fn an_exchange_proves_the_password_and_wants_it_proven() {
        let mut scram = exchange();
        let answer = scram.answer(CHALLENGE).await.unwrap();
        assert_eq!(
            answer,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k="
        );
        assert!(scram.verify(b"v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=").is_ok());
        assert!(scram.verify(b"v=AAAA").is_err());
        assert!(exchange().verify(b"v=AAAA").is_err());
    }

    #[tokio::test]
    async fn many_iterations_hold_up_nobody_else() {
        let mut scram = exchange();
        let challenge = String::from_utf8_lossy(CHALLENGE).replace("i=4096", "i=100000");
        let answering = scram.answer(challenge.as_bytes());
        // It is not done at once, on the thread of all checks.
        let mut answering = std::pin::pin!(answering);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, answering.as_mut()).await.is_err());
        answering.await.unwrap();
    }

    #[tokio::test]
    async fn challenges_that_are_none_are_refused() {
        for broken in [
            &b""[..],
            b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            b"\xff",
        ] {
            assert!(exchange().answer(broken).await.is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
