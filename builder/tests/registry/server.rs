//! A registry in this process that keeps to the protocol, except where a rule says otherwise.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary is a crate of its own and uses some of it"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use immbuild_cas::digest::Digest;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What is answered instead of what is right.
pub enum Instead {
    /// What is right after all.
    Right,
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// As much of what is right, then the end of the connection.
    Cut(usize),
    /// What is right, so many bytes at a time.
    Trickle(usize, Duration),
    /// The end of the connection, before the request's body was read.
    Nothing,
}

/// Gets the request and how many came before it.
pub type Rule = Box<dyn Fn(&Request, usize) -> Instead + Send + Sync>;

/// What a registry holds.
#[derive(Default)]
pub struct Held {
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// By `repository:tag` and `repository@digest`: media type and bytes.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub uploads: BTreeMap<String, Vec<u8>>,
    pub requests: Vec<Request>,
    /// Does it know what referrers are?
    pub referrers: bool,
}

#[derive(Clone)]
pub struct Server {
    pub host: String,
    pub held: Arc<Mutex<Held>>,
}

impl Server {
    pub fn start(rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let held = Arc::new(Mutex::new(Held::default()));
        let server = Self { host, held };
        let own = server.clone();
        let rule = Arc::new(rule);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, rule) = (own.clone(), Arc::clone(&rule));
                thread::spawn(move || own.serve(stream, &*rule));
            }
        });
        server
    }

    /// One that always does what is right.
    pub fn right() -> Self {
        Self::start(Box::new(|_, _| Instead::Right))
    }

    pub fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut held = self.held.lock().expect("no thread panics with it");
        held.blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Digest {
        let digest = Digest::of(bytes);
        let mut held = self.held.lock().expect("no thread panics with it");
        let document = (media_type.to_owned(), bytes.to_vec());
        held.manifests
            .insert(format!("{repository}@{digest}"), document.clone());
        held.manifests
            .insert(format!("{repository}:{tag}"), document);
        digest
    }

    pub fn requests(&self) -> Vec<Request> {
        self.held
            .lock()
            .expect("no thread panics with it")
            .requests
            .clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    /// What is there by tag.
    pub fn tags(&self) -> Vec<String> {
        let held = self.held.lock().expect("no thread panics with it");
        held.manifests
            .keys()
            .filter(|name| !name.contains('@'))
            .cloned()
            .collect()
    }

    fn serve(
        &self,
        mut stream: TcpStream,
        rule: &(dyn Fn(&Request, usize) -> Instead + Send + Sync),
    ) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
        let Some(mut request) = head(&mut reader) else {
            return;
        };
        let before = {
            let mut held = self.held.lock().expect("no thread panics with it");
            let before = held
                .requests
                .iter()
                .filter(|known| known.line() == request.line())
                .count();
            held.requests.push(request.clone());
            before
        };
        let instead = rule(&request, before);
        if matches!(instead, Instead::Nothing) {
            return;
        }
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        request.body = vec![0; length];
        if reader.read_exact(&mut request.body).is_err() {
            return;
        }
        let right = || self.right_answer(&request);
        let _ = match instead {
            Instead::Right => stream.write_all(&right()),
            Instead::Raw(bytes) => stream.write_all(&bytes),
            Instead::Cut(count) => {
                let bytes = right();
                stream.write_all(&bytes[..count.min(bytes.len())])
            }
            Instead::Trickle(count, pause) => right().chunks(count).try_for_each(|bytes| {
                thread::sleep(pause);
                stream.write_all(bytes)
            }),
            Instead::Nothing => Ok(()),
        };
        let _ = stream.flush();
    }

    fn right_answer(&self, request: &Request) -> Vec<u8> {
        let mut held = self.held.lock().expect("no thread panics with it");
        let is_head = request.method == "HEAD";
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return answer(404, &[], b"", is_head);
        };
        if rest.is_empty() {
            return answer(200, &[], b"{}", is_head);
        }
        if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
            return held.upload(request, repository, id);
        }
        if let Some((_, digest)) = rest.split_once("/blobs/") {
            let Some(blob) = held.blobs.get(digest) else {
                return answer(404, &[], b"", is_head);
            };
            let from: Option<usize> = request
                .header("range")
                .strip_prefix("bytes=")
                .and_then(|range| range.split('-').next()?.parse().ok());
            return match from {
                Some(from) => {
                    let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                    answer(206, &[("Content-Range", &range)], &blob[from..], is_head)
                }
                None => answer(200, &[], blob, is_head),
            };
        }
        if let Some((_, subject)) = rest.split_once("/referrers/")
            && held.referrers
        {
            let list = held.referrers_of(subject);
            let headers = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
            return answer(200, &headers, &list, is_head);
        }
        let Some((repository, name)) = rest.split_once("/manifests/") else {
            return answer(404, &[], b"", is_head);
        };
        let separator = if name.contains(':') { '@' } else { ':' };
        let key = format!("{repository}{separator}{name}");
        if request.method == "PUT" {
            let digest = Digest::of(&request.body);
            let media_type = request.header("content-type").to_owned();
            let subject = subject_of(&request.body).filter(|_| held.referrers);
            held.manifests
                .insert(key, (media_type, request.body.clone()));
            let digest = digest.to_string();
            let mut headers = vec![("Docker-Content-Digest", digest.as_str())];
            headers.extend(subject.as_deref().map(|subject| ("OCI-Subject", subject)));
            return answer(201, &headers, b"", false);
        }
        match held.manifests.get(&key) {
            None => {
                let said =
                    br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                answer(404, &[], said, is_head)
            }
            Some((media_type, bytes)) => {
                let digest = Digest::of(bytes).to_string();
                let headers = [
                    ("Content-Type", media_type.as_str()),
                    ("Docker-Content-Digest", &digest),
                ];
                answer(200, &headers, bytes, is_head)
            }
        }
    }
}

/// What a manifest is about.
fn subject_of(manifest: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    Some(json["subject"]["digest"].as_str()?.to_owned())
}

impl Held {
    fn referrers_of(&self, subject: &str) -> Vec<u8> {
        let entries: Vec<serde_json::Value> = self
            .manifests
            .iter()
            .filter(|(name, (_, bytes))| {
                name.contains('@') && subject_of(bytes).as_deref() == Some(subject)
            })
            .map(|(_, (media_type, bytes))| {
                let json: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
                serde_json::json!({
                    "mediaType": media_type,
                    "digest": Digest::of(bytes).to_string(),
                    "size": bytes.len(),
                    "artifactType": json["artifactType"],
                })
            })
            .collect();
        let list = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
        serde_json::to_vec(&list).expect("JSON")
    }

    fn upload(&mut self, request: &Request, repository: &str, id: &str) -> Vec<u8> {
        let location = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
        match request.method.as_str() {
            "POST" => {
                let id = self.uploads.len().to_string();
                self.uploads.insert(id.clone(), Vec::new());
                answer(202, &[("Location", &location(&id))], b"", false)
            }
            "PATCH" | "GET" => {
                let Some(upload) = self.uploads.get_mut(id) else {
                    return answer(404, &[], b"", false);
                };
                let first = request
                    .header("content-range")
                    .split('-')
                    .next()
                    .and_then(|first| first.parse().ok());
                if request.method == "PATCH" && first != Some(upload.len()) {
                    return answer(416, &[], b"", false);
                }
                upload.extend_from_slice(&request.body);
                let range = format!("0-{}", upload.len().saturating_sub(1));
                let status = if request.method == "GET" { 204 } else { 202 };
                answer(
                    status,
                    &[("Location", &location(id)), ("Range", &range)],
                    b"",
                    false,
                )
            }
            "PUT" => {
                let Some(mut blob) = self.uploads.get(id).cloned() else {
                    return answer(404, &[], b"", false);
                };
                blob.extend_from_slice(&request.body);
                let digest = Digest::of(&blob).to_string();
                let asked = request
                    .query
                    .strip_prefix("digest=")
                    .unwrap_or_default()
                    .replace("%3A", ":");
                if asked != digest {
                    let said = br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#;
                    return answer(400, &[], said, false);
                }
                self.blobs.insert(digest.clone(), blob);
                answer(201, &[("Docker-Content-Digest", &digest)], b"", false)
            }
            _ => answer(405, &[], b"", false),
        }
    }
}

fn head(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next()?.to_owned(),
        ..Request::default()
    };
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    path.clone_into(&mut request.path);
    query.clone_into(&mut request.query);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Some(request);
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

/// An answer in full, after which the connection ends.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8], is_head: bool) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n", body.len());
    let length = if status == 204 { "" } else { &length };
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let headers = headers.concat();
    let text = format!("HTTP/1.1 {status} Any\r\nConnection: close\r\n{length}{headers}\r\n");
    let mut bytes = text.into_bytes();
    if !is_head {
        bytes.extend_from_slice(body);
    }
    bytes
}
