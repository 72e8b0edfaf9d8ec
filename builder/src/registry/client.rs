//! Asks registries: says who we are when they want to know, comes again when they say so, and follows them only where that is safe.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::access::is_loopback;
use super::challenge::{self, Challenge};
use super::credentials::{Credential, basic};
use super::{Access, RegistryError};
use crate::image::json::Json;
use crate::resolve::http::exchange::{
    Answer, Call, ExchangeError, Method, Payload, Wire, form, origin, scheme_and_host, shown_text,
    with_query,
};
use crate::resolve::http::{Policy, join};
use crate::spec::image_name::ImageRepository;

/// How patient and how generous asking is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often something is asked when the failure may pass.
    pub attempts: u32,
    /// Wait before the second attempt; doubled before each further one.
    pub first_wait: Duration,
    /// Longest wait that a registry's `Retry-After` may ask for.
    pub longest_wait: Duration,
    /// Longest time to make a connection.
    pub connect: Duration,
    /// Longest time without a byte, and the span in which at least [`Self::slowest`] bytes a second must move.
    pub idle: Duration,
    /// Bytes a second: who is slower, falls silent.
    pub slowest: u64,
    /// How much of a blob is sent at once where a registry takes no more.
    pub chunk: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            slowest: 1024,
            chunk: 8 << 20,
        }
    }
}

/// Most redirects followed for one request.
const REDIRECTS: usize = 5;
/// Longest answer that says what is wrong, or gives a token.
const SAID_MAX: u64 = 1 << 20;
/// How much of what a registry says is shown.
const SHOWN_MAX: usize = 300;

/// What is to be allowed in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing in it: the registry itself.
    Enter,
    Pull,
    Push,
}

/// What the registry is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Where, in full.
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Made anew for each attempt.
    pub(super) payload: &'a dyn Fn() -> Payload,
    /// How many bytes that are.
    pub(super) size: u64,
    /// In which repository.
    pub(super) repository: &'a ImageRepository,
    pub(super) action: Action,
    /// From which other one a blob is taken, too.
    pub(super) from: Option<&'a ImageRepository>,
    /// May it be asked again after a failure?
    pub(super) again: bool,
}

impl<'a> Ask<'a> {
    /// To be given something of a repository.
    pub(super) fn get(
        url: String,
        headers: Vec<(&'static str, String)>,
        repository: &'a ImageRepository,
    ) -> Self {
        Self {
            method: Method::Get,
            url,
            headers,
            payload: &nothing,
            size: 0,
            repository,
            action: Action::Pull,
            from: None,
            again: true,
        }
    }
}

/// No payload.
pub(super) fn nothing() -> Payload {
    Payload::None
}

/// An answer, and where it came from in the end.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) url: String,
}

/// Asks registries, over the same connections where that is possible.
pub struct Client<'a> {
    access: &'a Access,
    pub(super) patience: Patience,
    pub(super) cancel: &'a AtomicBool,
    wires: Mutex<BTreeMap<String, Arc<Wire>>>,
    /// What `Authorization` says, by host and what it allows.
    said: Mutex<BTreeMap<(String, Vec<String>), Introduction>>,
    /// One at a time asks for tokens: the others wait for what it gets.
    asking: Mutex<()>,
    /// Used instead of what the files have.
    given: Option<Credential>,
}

/// What is said to a registry.
#[derive(Clone, PartialEq, Eq)]
struct Introduction {
    /// The value of `Authorization`.
    value: String,
    /// Does it say who we are?
    named: bool,
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("access", &self.access)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl<'a> Client<'a> {
    /// One that speaks to nobody yet.
    pub fn new(access: &'a Access, patience: Patience, cancel: &'a AtomicBool) -> Self {
        Self {
            access,
            patience,
            cancel,
            wires: Mutex::default(),
            said: Mutex::default(),
            asking: Mutex::default(),
            given: None,
        }
    }

    /// One that says it is this, whatever the files have.
    #[must_use]
    pub fn with(mut self, credential: Credential) -> Self {
        self.given = Some(credential);
        self
    }

    /// Does the registry let us in? Says whether it wanted to know who we are.
    ///
    /// # Errors
    /// It does not, or is none.
    pub fn check(&self, host: &str) -> Result<bool, RegistryError> {
        let repository = format!("{host}/any")
            .parse()
            .map_err(|_| RegistryError::Protocol {
                host: host.to_owned(),
                cause: "that is no host".into(),
            })?;
        let url = format!("{}/v2/", self.access.base(host));
        let asked = self.ask(&Ask {
            action: Action::Enter,
            ..Ask::get(url, Vec::new(), &repository)
        })?;
        match asked.answer.status() {
            200 => Ok(self.said(host, &[]).is_some()),
            _ => Err(self.refused(asked, &repository, "to be asked".into())),
        }
    }

    /// The URL of something in a repository.
    pub(super) fn url(&self, repository: &ImageRepository, rest: &str) -> String {
        let base = self.access.base(repository.host());
        format!("{base}/v2/{}/{rest}", repository.path())
    }

    /// The URL that a `Location` of an answer means. It may be another host's.
    pub(super) fn location(
        reply: &Reply,
        repository: &ImageRepository,
    ) -> Result<String, RegistryError> {
        let protocol = |cause: &str| RegistryError::Protocol {
            host: repository.host().to_owned(),
            cause: cause.to_owned(),
        };
        let location = reply
            .answer
            .header("location")
            .ok_or_else(|| protocol("it does not say where (`Location`)"))?;
        join(&reply.url, location).ok_or_else(|| protocol("its `Location` is no URL"))
    }

    /// Asks until there is an answer that is one, whatever it says.
    ///
    /// # Errors
    /// There is none, or we are not let in.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Reply, RegistryError> {
        let mut wait = self.patience.first_wait;
        for attempt in 1.. {
            let (cause, asked) = match self.attempt(ask) {
                Err(Fault::Passing(cause)) => (cause, None),
                Err(Fault::Final(error)) => return Err(*error),
                Ok(reply) => {
                    let status = reply.answer.status();
                    if !may_pass(status) || !ask.again {
                        return Ok(reply);
                    }
                    (format!("HTTP status {status}"), retry_after(&reply.answer))
                }
            };
            if attempt >= self.patience.attempts || !ask.again {
                return Err(RegistryError::Unreachable {
                    url: shown_text(&ask.url),
                    cause,
                    attempts: attempt,
                });
            }
            self.rest(asked.unwrap_or(wait).min(self.patience.longest_wait))?;
            wait *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// Waits, and no longer than the process is wanted.
    pub(super) fn rest(&self, wait: Duration) -> Result<(), RegistryError> {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = wait;
        while !left.is_zero() {
            self.go_on()?;
            let step = left.min(STEP);
            thread::sleep(step);
            left -= step;
        }
        self.go_on()
    }

    /// # Errors
    /// The process is asked to stop.
    pub(super) fn go_on(&self) -> Result<(), RegistryError> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(RegistryError::Interrupted)
        } else {
            Ok(())
        }
    }

    fn attempt(&self, ask: &Ask<'_>) -> Result<Reply, Fault> {
        self.go_on()?;
        let own = ask.repository.host();
        let scopes = scopes(ask);
        let mut url = ask.url.clone();
        let mut refreshed = false;
        let mut redirects = 0;
        loop {
            // What says who we are goes to the registry alone, never to where it sends us.
            let is_own = origin(&url) == origin(&self.access.base(own));
            let said = if is_own {
                self.said(own, &scopes)
            } else {
                None
            };
            let mut headers = ask.headers.clone();
            headers.extend(said.clone().map(|said| ("authorization", said.value)));
            let payload = (ask.payload)();
            let wire = if is_own {
                self.wire(own)?
            } else {
                self.wire_to(&url)?
            };
            // Who is sent much may take long, and still not for ever.
            let most = Duration::from_secs(ask.size / self.patience.slowest.max(1));
            let deadline = (ask.size > 0).then(|| self.patience.idle + most);
            let answer = wire
                .send(Call {
                    method: ask.method,
                    url: &url,
                    headers: &headers,
                    payload,
                    deadline,
                })
                .map_err(|error| self.fault(&url, error))?;
            let reply = Reply { answer, url };
            match reply.answer.status() {
                401 if is_own && !refreshed => {
                    refreshed = true;
                    self.introduce(own, &scopes, said.as_ref(), ask, &reply)?;
                    url = reply.url;
                }
                401 if is_own => {
                    let named = said.is_some_and(|said| said.named);
                    let said = words(&said_of(reply.answer));
                    let said = said.as_deref().unwrap_or("HTTP status 401");
                    return Err(unauthorized(own, named, said).into());
                }
                301 | 302 | 303 | 307 | 308 if redirects < REDIRECTS => {
                    redirects += 1;
                    url = self.redirect(ask, &reply)?;
                }
                301 | 302 | 303 | 307 | 308 => {
                    return Err(redirect(own, format!("more than {REDIRECTS} times")).into());
                }
                _ => return Ok(reply),
            }
        }
    }

    fn fault(&self, url: &str, error: ExchangeError) -> Fault {
        let _ = self;
        match error {
            ExchangeError::Transport(cause) => Fault::Passing(cause),
            ExchangeError::Url(url) => Fault::Final(Box::new(RegistryError::Protocol {
                host: url.clone(),
                cause: "that is no URL".into(),
            })),
            ExchangeError::Tls(cause) => Fault::Final(Box::new(RegistryError::Tls {
                url: shown_text(url),
                cause,
            })),
        }
    }

    /// Where an answer sends us, if we go there.
    fn redirect(&self, ask: &Ask<'_>, reply: &Reply) -> Result<String, RegistryError> {
        let own = ask.repository.host();
        if !matches!(ask.method, Method::Get | Method::Head) {
            let status = reply.answer.status();
            return Err(redirect(
                own,
                format!("with what it is to take (HTTP {status})"),
            ));
        }
        let url = Self::location(reply, ask.repository)?;
        self.may_go(own, &reply.url, &url)?;
        Ok(url)
    }

    /// From a safe connection nothing leads to an unsafe one, and from elsewhere nothing leads into this machine.
    pub(super) fn may_go(&self, own: &str, from: &str, to: &str) -> Result<(), RegistryError> {
        let parts = |url: &str| {
            scheme_and_host(url).ok_or_else(|| redirect(own, format!("`{}`", shown_text(url))))
        };
        let (from_scheme, from_host) = parts(from)?;
        let (scheme, host) = parts(to)?;
        match scheme.as_str() {
            "https" => {}
            "http"
                if from_scheme == "http" && (host == from_host || self.access.is_plain(&host)) => {}
            "http" => {
                let cause = format!("`{}` is not protected", shown_text(to));
                return Err(redirect(own, cause));
            }
            _ => return Err(redirect(own, format!("`{}`", shown_text(to)))),
        }
        if is_loopback(&host) && !is_loopback(&from_host) {
            let cause = format!("`{}` is this machine", shown_text(to));
            return Err(redirect(own, cause));
        }
        Ok(())
    }

    fn wire(&self, host: &str) -> Result<Arc<Wire>, RegistryError> {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = wires.get(host) {
            return Ok(Arc::clone(wire));
        }
        let policy = Policy {
            connect: self.patience.connect,
            idle: self.patience.idle,
            ..Policy::default()
        };
        let wire =
            Wire::new(&policy, &self.access.trust(host)?).map_err(|error| RegistryError::Tls {
                url: self.access.base(host),
                cause: error.to_string(),
            })?;
        let wire = Arc::new(wire);
        wires.insert(host.to_owned(), Arc::clone(&wire));
        Ok(wire)
    }

    /// Connections to wherever a URL leads: who we are to the registry is no business of that place.
    fn wire_to(&self, url: &str) -> Result<Arc<Wire>, RegistryError> {
        let host = scheme_and_host(url).map(|(_, host)| host);
        self.wire(&host.unwrap_or_default())
    }

    fn said(&self, host: &str, scopes: &[String]) -> Option<Introduction> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(&(host.to_owned(), scopes.to_vec())).cloned()
    }

    /// Finds out what to say so that the registry lets us in.
    fn introduce(
        &self,
        host: &str,
        scopes: &[String],
        before: Option<&Introduction>,
        ask: &Ask<'_>,
        reply: &Reply,
    ) -> Result<(), Fault> {
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.said(host, scopes).as_ref() != before {
            return Ok(());
        }
        let credential = match &self.given {
            Some(given) => Some(given.clone()),
            None => self.access.credentials.find(ask.repository)?,
        };
        let challenge = challenge::best(reply.answer.headers("www-authenticate"));
        let named = credential.is_some();
        let value = match (challenge, credential) {
            (Some(Challenge::Basic), Some(Credential::Password { user, password })) => {
                let said = basic(&user, &password);
                if before.is_some_and(|before| before.value == said) {
                    return Err(unauthorized(host, true, "the password is wrong").into());
                }
                said
            }
            (Some(Challenge::Basic), Some(Credential::Token(_))) => {
                return Err(
                    unauthorized(host, true, "it wants a password, and there is a token").into(),
                );
            }
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                credential,
            ) => {
                let mut wanted = scopes.to_vec();
                if let Some(scope) = scope
                    && wanted.is_empty()
                {
                    wanted.push(scope);
                }
                self.token(
                    host,
                    &reply.url,
                    &realm,
                    service.as_deref(),
                    &wanted,
                    credential,
                )?
            }
            (Some(Challenge::Basic), None) => {
                return Err(unauthorized(host, false, "it wants a user and a password").into());
            }
            (None, _) => {
                let cause = "it does not say how to ask it (`WWW-Authenticate`)";
                return Err(unauthorized(host, named, cause).into());
            }
        };
        let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = Introduction { value, named };
        all.insert((host.to_owned(), scopes.to_vec()), said);
        Ok(())
    }

    /// A token for these scopes, as `Authorization` says it.
    fn token(
        &self,
        host: &str,
        asked: &str,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        credential: Option<Credential>,
    ) -> Result<String, Fault> {
        // A password goes no less protected than the question was.
        self.may_go(host, asked, realm)?;
        let named = credential.is_some();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(service.map(|service| ("service", service)));
        let joined = scopes.join(" ");
        let mut headers = Vec::new();
        let (method, url, payload) = match credential {
            Some(Credential::Token(token)) => {
                pairs.push(("scope", &joined));
                pairs.push(("grant_type", "refresh_token"));
                pairs.push(("client_id", "immbuild"));
                pairs.push(("refresh_token", &token));
                headers.push(("content-type", "application/x-www-form-urlencoded".into()));
                let body = form(&pairs).into_bytes();
                (Method::Post, realm.to_owned(), Payload::Bytes(body))
            }
            other => {
                pairs.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                if let Some(Credential::Password { user, password }) = &other {
                    headers.push(("authorization", basic(user, password)));
                }
                let url = with_query(realm, &pairs)
                    .ok_or_else(|| redirect(host, format!("`{}`", shown_text(realm))))?;
                (Method::Get, url, Payload::None)
            }
        };
        let call = Call {
            method,
            url: &url,
            headers: &headers,
            payload,
            deadline: None,
        };
        let answer = self
            .wire_to(realm)?
            .send(call)
            .map_err(|error| self.fault(realm, error))?;
        let status = answer.status();
        if may_pass(status) {
            let shown = shown_text(realm);
            return Err(Fault::Passing(format!("`{shown}`: HTTP status {status}")));
        }
        let body = said_of(answer);
        if status != 200 {
            let said = words(&body).unwrap_or_else(|| format!("no token (HTTP {status})"));
            return Err(unauthorized(host, named, &said).into());
        }
        let token = Json::parse(&body).ok().and_then(|json| match json {
            Json::Object(fields) => ["token", "access_token"]
                .iter()
                .find_map(|name| match fields.get(*name) {
                    Some(Json::String(token)) if !token.is_empty() => Some(token.clone()),
                    _ => None,
                }),
            _ => None,
        });
        match token {
            // What is no header's value would be an error that quotes it.
            Some(token) if token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) => {
                Ok(format!("Bearer {token}"))
            }
            _ => Err(unauthorized(host, named, "the answer has no token in it").into()),
        }
    }

    /// What an answer that is none of those wanted means.
    pub(super) fn refused(
        &self,
        reply: Reply,
        repository: &ImageRepository,
        what: String,
    ) -> RegistryError {
        let _ = self;
        let status = reply.answer.status();
        let said = words(&said_of(reply.answer)).map(|said| format!(": {said}"));
        RegistryError::Refused {
            host: repository.host().to_owned(),
            what,
            status,
            said: said.unwrap_or_default(),
        }
    }
}

/// How an attempt fails.
enum Fault {
    /// It may work when tried again.
    Passing(String),
    Final(Box<RegistryError>),
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        Self::Final(Box::new(error))
    }
}

fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// RFC 9110 §10.2.3, the form in seconds. The form with a date would need a clock, and the usual wait does as well.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let seconds = answer.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn scopes(ask: &Ask<'_>) -> Vec<String> {
    let own = match ask.action {
        Action::Enter => return Vec::new(),
        Action::Pull => "pull",
        Action::Push => "pull,push",
    };
    let mut scopes = vec![format!("repository:{}:{own}", ask.repository.path())];
    if let Some(from) = ask.from {
        scopes.push(format!("repository:{}:pull", from.path()));
    }
    scopes
}

fn redirect(host: &str, cause: String) -> RegistryError {
    RegistryError::Redirect {
        host: host.to_owned(),
        cause,
    }
}

fn unauthorized(host: &str, named: bool, said: &str) -> RegistryError {
    RegistryError::Unauthorized {
        host: host.to_owned(),
        named,
        said: said.to_owned(),
    }
}

/// The start of a small body; one that breaks off says what it says.
fn said_of(answer: Answer) -> Vec<u8> {
    let mut body = Vec::new();
    let _ = answer.take(SAID_MAX).read_to_end(&mut body);
    body
}

/// The registry's own words (OCI distribution-spec, "Error Codes"), in one line without anything a terminal would obey.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let Ok(Json::Object(top)) = Json::parse(body) else {
        return None;
    };
    let said = match (top.get("errors"), top.get("details").or(top.get("error"))) {
        (Some(Json::Array(errors)), _) => {
            let all: Vec<String> = errors
                .iter()
                .filter_map(|error| {
                    let Json::Object(error) = error else {
                        return None;
                    };
                    let text = |name| match error.get(name) {
                        Some(Json::String(text)) if !text.is_empty() => Some(text.as_str()),
                        _ => None,
                    };
                    text("message").or(text("code")).map(str::to_owned)
                })
                .collect();
            all.join("; ")
        }
        (_, Some(Json::String(text))) => text.clone(),
        _ => return None,
    };
    let plain: String = said
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN_MAX)
        .collect();
    (!plain.trim().is_empty()).then(|| plain.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_registry_are_one_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"not\u001b[31m yours\n"},{"code":"TOOMANYREQUESTS"}]}"#;
        assert_eq!(
            words(body).as_deref(),
            Some("not [31m yours ; TOOMANYREQUESTS")
        );
        assert_eq!(
            words(br#"{"details":"incorrect"}"#).as_deref(),
            Some("incorrect")
        );
        for body in [&b"<html>"[..], b"[]", b"{}", br#"{"errors":[]}"#, b""] {
            assert_eq!(words(body), None);
        }
    }

    #[test]
    fn nothing_leads_from_a_safe_place_to_an_unsafe_one_or_into_this_machine() {
        let access = Access::default();
        let cancel = AtomicBool::new(false);
        let client = Client::new(&access, Patience::default(), &cancel);
        let may = |from, to| client.may_go("r.example.com", from, to).is_ok();
        assert!(may(
            "https://r.example.com/v2/",
            "https://cdn.example.com/x"
        ));
        assert!(may("http://localhost:5000/v2/", "http://localhost:5000/x"));
        assert!(may("http://localhost:5000/v2/", "http://127.0.0.1:5001/x"));
        assert!(may(
            "http://localhost:5000/v2/",
            "https://cdn.example.com/x"
        ));
        assert!(!may("https://r.example.com/v2/", "http://r.example.com/x"));
        assert!(!may(
            "http://localhost:5000/v2/",
            "http://cdn.example.com/x"
        ));
        assert!(!may("https://r.example.com/v2/", "https://localhost/x"));
        assert!(!may("https://r.example.com/v2/", "https://127.0.0.1:1/x"));
        assert!(!may("https://r.example.com/v2/", "file:///etc/passwd"));
        assert!(!may("https://r.example.com/v2/", "ftp://r.example.com/x"));
    }
}
