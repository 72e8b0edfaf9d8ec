//! EFFECT: one request and its answer, for protocols that are more than fetching files. Nothing is followed, retried or
//! believed here.

use std::io::{self, Read};
use std::time::Duration;

use reqwest::blocking::{Body, Client, Response};
use reqwest::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity, Url, redirect};

use super::{Policy, client_builder, innermost, is_tls, shown};

/// Whom a connection trusts, and as whom it is made.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// More roots than the machine's own: certificates in PEM.
    pub roots: Vec<Vec<u8>>,
    /// A certificate and its key in PEM, one after the other.
    pub identity: Option<Vec<u8>>,
    /// Go there itself, whatever proxy the environment names: for this machine's own addresses.
    pub direct: bool,
}

/// A key is nobody's business.
impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust")
            .field("roots", &self.roots.len())
            .field("identity", &self.identity.is_some())
            .field("direct", &self.direct)
            .finish()
    }
}

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "RFC 9110 §9.3 and RFC 5789 say it")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// What is sent along.
pub enum Payload {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// As many bytes from there.
    Stream(Box<dyn Read + Send>, u64),
}

/// A request.
pub struct Call<'a> {
    /// What is done.
    pub method: Method,
    /// To what.
    pub url: &'a str,
    /// In lower case, with their values.
    pub headers: &'a [(&'static str, String)],
    /// What is sent along.
    pub payload: Payload,
    /// Longest time for all of it, where much is sent and little answered. Nothing said: the longest wait for the answer, and then
    /// for each further read, is that of the policy.
    pub deadline: Option<Duration>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No URL, or one of another protocol, or one with a password in it.
    #[error("`{0}` is no URL to be asked")]
    Url(String),
    /// The connection was not made, broke, or fell silent.
    #[error("{0}")]
    Transport(String),
    /// The server's certificate, this machine's list of roots, or our own certificate is not good enough.
    #[error("not trusted: {0}")]
    Tls(String),
}

/// Connections that trust the same.
#[derive(Debug)]
pub struct Wire(Client);

impl Wire {
    /// Makes none yet.
    ///
    /// # Errors
    /// A certificate or key cannot be read.
    pub fn new(policy: &Policy, trust: &Trust) -> Result<Self, ExchangeError> {
        let tls = |error: reqwest::Error| ExchangeError::Tls(innermost(&error));
        let mut builder = client_builder(Client::builder(), policy)
            .redirect(redirect::Policy::none())
            // What waits too long in a pool may be closed from the other side just when it is used.
            .pool_idle_timeout(Duration::from_secs(10));
        if trust.direct {
            builder = builder.no_proxy();
        }
        let mut roots = Vec::new();
        for pem in &trust.roots {
            roots.extend(Certificate::from_pem_bundle(pem).map_err(tls)?);
        }
        if !roots.is_empty() {
            builder = builder.tls_certs_merge(roots);
        }
        if let Some(pem) = &trust.identity {
            builder = builder.identity(Identity::from_pem(pem).map_err(tls)?);
        }
        builder.build().map(Self).map_err(tls)
    }

    /// Asks, and gives whatever answer comes.
    ///
    /// # Errors
    /// There is none.
    pub fn send(&self, call: Call<'_>) -> Result<Answer, ExchangeError> {
        let url = super::parse(call.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| ExchangeError::Url(shown_text(call.url)))?;
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Head => reqwest::Method::HEAD,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut request = self
            .0
            .request(method, url)
            .header(ACCEPT_ENCODING, "identity");
        if let Some(deadline) = call.deadline {
            request = request.timeout(deadline);
        }
        for (name, value) in call.headers {
            // What a header cannot hold, no server can mean.
            let mut header = HeaderValue::from_str(value)
                .map_err(|error| ExchangeError::Transport(format!("`{name}`: {error}")))?;
            header.set_sensitive(*name == "authorization");
            request = request.header(HeaderName::from_static(name), header);
        }
        request = match call.payload {
            // Some registries want to be told that nothing comes.
            Payload::None if matches!(call.method, Method::Get | Method::Head) => request,
            Payload::None => request.header("content-length", "0"),
            Payload::Bytes(bytes) => request.body(bytes),
            Payload::Stream(reader, size) => request.body(Body::sized(reader, size)),
        };
        request.send().map(Answer).map_err(|error| {
            if is_tls(&error) {
                ExchangeError::Tls(innermost(&error))
            } else if error.is_timeout() {
                ExchangeError::Transport("no answer in time".into())
            } else {
                ExchangeError::Transport(innermost(&error))
            }
        })
    }
}

/// What a server answered; read it for the body.
#[derive(Debug)]
pub struct Answer(Response);

impl Answer {
    /// RFC 9110 §15.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// The value of a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let values = self.0.headers().get_all(name);
        values.into_iter().filter_map(|value| value.to_str().ok())
    }

    /// How long the body is, where that is said.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let is_late = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<reqwest::Error>())
                .is_some_and(reqwest::Error::is_timeout);
            io::Error::other(if is_late {
                "no further byte in time".to_owned()
            } else {
                innermost(&error)
            })
        })
    }
}

/// Scheme, host and port, which say together who is spoken to (RFC 6454 §4).
pub fn origin(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let port = url.port_or_known_default()?;
    Some(format!("{}://{}:{port}", url.scheme(), url.host_str()?))
}

/// The scheme and the host with its port, as a reference names it: `https`, `localhost:5000`.
pub fn scheme_and_host(url: &str) -> Option<(String, String)> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Some((url.scheme().to_owned(), host))
}

/// A URL with more behind its question mark.
pub fn with_query(url: &str, pairs: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    url.query_pairs_mut().extend_pairs(pairs);
    Some(url.into())
}

/// The same pairs as the body of a form.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form/").expect("a URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// A URL as messages may have it, without what may be secret in it.
pub fn shown_text(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => shown(&url),
        Err(_) => url.rsplit('@').next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_spoken_to_is_scheme_host_and_port() {
        let of = |url| origin(url).expect("an origin");
        assert_eq!(
            of("https://a.example.com/x"),
            of("https://a.example.com:443/y?z")
        );
        assert_ne!(of("https://a.example.com/"), of("http://a.example.com/"));
        assert_ne!(
            of("https://a.example.com/"),
            of("https://a.example.com:444/")
        );
        assert_ne!(of("https://a.example.com/"), of("https://b.example.com/"));
        let split = scheme_and_host("http://localhost:5000/v2/").expect("both");
        assert_eq!(split, ("http".to_owned(), "localhost:5000".to_owned()));
    }

    #[test]
    fn queries_are_escaped_and_kept() {
        let url = with_query(
            "https://a.example.com/t?a=1",
            &[("scope", "r:x y:pull,push")],
        );
        let expected = "https://a.example.com/t?a=1&scope=r%3Ax+y%3Apull%2Cpush";
        assert_eq!(url.as_deref(), Some(expected));
        assert_eq!(form(&[("p", "a&b=c")]), "p=a%26b%3Dc");
    }

    #[test]
    fn a_key_is_not_printed() {
        let trust = Trust {
            roots: Vec::new(),
            identity: Some(b"PRIVATE KEY".to_vec()),
            direct: false,
        };
        let said = format!("{trust:?}");
        assert!(
            !said.contains("PRIVATE") && !said.contains("80, 82"),
            "{said}"
        );
    }
}
