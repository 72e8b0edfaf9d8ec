//! A server on the loopback interface answers from a script, one answer for each connection.
#![allow(clippy::disallowed_methods, reason = "a test measures a timeout")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use immbuild_cas::store::{BlobSource as _, MemoryStore};

use super::*;

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

type Answer = Box<dyn FnOnce(&mut TcpStream) + Send>;

impl Server {
    /// Serves these answers in turn, then closes the port.
    fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else {
                    return;
                };
                let mut request = String::new();
                let mut lines = BufReader::new(&stream);
                while lines.read_line(&mut request).is_ok_and(|count| count > 2) {}
                seen.lock().unwrap().push(request);
                answer(&mut stream);
            }
        });
        Self { url, requests }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// Exactly these bytes, then the end of the connection.
fn raw(text: impl Into<Vec<u8>>) -> Answer {
    let bytes = text.into();
    Box::new(move |stream| {
        let _ = stream.write_all(&bytes);
    })
}

fn ok(body: &str) -> Answer {
    let length = body.len();
    raw(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

fn status(line: &str) -> Answer {
    raw(format!(
        "HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ))
}

fn redirect(to: &str) -> Answer {
    status(&format!("302 Found\r\nLocation: {to}"))
}

fn hurried() -> Policy {
    Policy {
        attempts: 3,
        first_wait: Duration::from_millis(1),
        connect: Duration::from_secs(5),
        idle: Duration::from_millis(500),
        limit: 1 << 20,
        accept: "*/*",
    }
}

fn get(url: &str, mirrors: &[String], expected: Option<Digest>) -> Result<Fetched, HttpError> {
    get_into(&MemoryStore::new(), url, mirrors, expected, false)
}

fn get_into(
    store: &MemoryStore,
    url: &str,
    mirrors: &[String],
    expected: Option<Digest>,
    offline: bool,
) -> Result<Fetched, HttpError> {
    let request = Request {
        url,
        mirrors,
        expected,
        size: None,
        offline,
    };
    fetch(&request, &hurried(), store, &|_, _| {})
}

fn fetched(text: &str) -> Fetched {
    Fetched {
        blob: BlobId::new(Digest::of(text.as_bytes())),
        size: text.len() as u64,
    }
}

/// The causes of a failure, one for each URL.
fn causes(result: Result<Fetched, HttpError>) -> Vec<Cause> {
    match result.expect_err("it fails") {
        HttpError::Unreachable { attempts } | HttpError::Mismatch { attempts, .. } => {
            attempts.0.into_iter().map(|(_, cause)| cause).collect()
        }
        other => panic!("another error: {other:?}"),
    }
}

#[test]
fn a_file_arrives_as_it_is_served() {
    // A server that claims an encoding nobody asked for does not get its bytes decoded.
    let body = "\x1f\x08 not really gzip";
    let server = Server::new(vec![raw(format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))]);
    let store = MemoryStore::new();
    let seen = RefCell::new(Vec::new());
    let request = Request {
        url: &format!("{}/a.gz", server.url),
        mirrors: &[],
        expected: None,
        size: None,
        offline: false,
    };
    let result = fetch(&request, &hurried(), &store, &|done, total| {
        seen.borrow_mut().push((done, total));
    })
    .expect("it is served");
    assert_eq!(result, fetched(body));
    assert_eq!(store.read(&result.blob).unwrap(), body.as_bytes());
    let length = body.len() as u64;
    assert_eq!(seen.borrow().last(), Some(&(length, Some(length))));
    let request = server.requests.lock().unwrap()[0].to_lowercase();
    assert!(request.contains("accept-encoding: identity"), "{request}");
    assert!(request.contains("user-agent: immbuild/"), "{request}");
}

#[test]
fn chunks_are_joined() {
    let server = Server::new(vec![raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )]);
    assert_eq!(get(&server.url, &[], None).unwrap(), fetched("abcde"));
}

#[test]
fn what_may_pass_is_tried_again() {
    for failure in [
        status("500 Oops"),
        status("503 Busy\r\nRetry-After: 0"),
        status("429 Slow down"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"),
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncut"),
        raw(""),
    ] {
        let server = Server::new(vec![failure, ok("hello")]);
        assert_eq!(get(&server.url, &[], None).unwrap(), fetched("hello"));
        assert_eq!(server.count(), 2);
    }
}

#[test]
fn what_stays_is_not_tried_again() {
    for code in [401, 403, 404, 410, 204, 206, 301] {
        let server = Server::new(vec![status(&format!("{code} No")), ok("hello")]);
        let causes = causes(get(&server.url, &[], None));
        assert!(
            matches!(causes[..], [Cause::Status(found)] if found == code),
            "{causes:?}"
        );
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn attempts_end() {
    let server = Server::new((0..9).map(|_| status("500 Oops")).collect());
    let causes = causes(get(&server.url, &[], None));
    assert!(matches!(causes[..], [Cause::Status(500)]), "{causes:?}");
    assert_eq!(server.count(), 3);
}

#[test]
fn a_silent_server_is_given_up() {
    let silent = || -> Answer {
        Box::new(|stream: &mut TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
            thread::sleep(Duration::from_millis(900));
        })
    };
    let server = Server::new(vec![silent(), silent(), silent()]);
    let begun = Instant::now();
    let causes = causes(get(&server.url, &[], None));
    assert!(matches!(causes[..], [Cause::Transport(_)]), "{causes:?}");
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[test]
fn a_slow_server_is_waited_for_as_long_as_bytes_come() {
    let slow: Answer = Box::new(|stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        for byte in b"hello" {
            thread::sleep(Duration::from_millis(200));
            let _ = stream.write_all(&[*byte]);
        }
    });
    // Longer in all than the longest wait for one byte.
    let server = Server::new(vec![slow]);
    assert_eq!(get(&server.url, &[], None).unwrap(), fetched("hello"));
}

#[test]
fn redirects_are_followed_and_counted() {
    let target = Server::new(vec![ok("hello")]);
    let server = Server::new(vec![redirect("/b"), redirect(&target.url)]);
    assert_eq!(get(&server.url, &[], None).unwrap(), fetched("hello"));

    let circle = Server::new((0..20).map(|_| redirect("/again")).collect());
    let causes = causes(get(&circle.url, &[], None));
    assert!(
        matches!(&causes[..], [Cause::Redirect(text)] if text == "more than 10 redirects"),
        "{causes:?}"
    );
    assert_eq!(circle.count(), 11);
}

#[test]
fn a_redirect_to_a_file_of_this_machine_is_refused() {
    let server = Server::new(vec![redirect("file:///etc/passwd")]);
    let causes = causes(get(&server.url, &[], None));
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert!(!matches!(causes[0], Cause::File(_)), "{causes:?}");
}

#[test]
fn mirrors_are_tried_in_order() {
    let good = Server::new(vec![ok("hello")]);
    let unused = Server::new(vec![ok("hello")]);
    let bad = Server::new(vec![status("404 No")]);
    let wrong = Server::new(vec![ok("other")]);
    let mirrors = [wrong.url.clone(), good.url.clone(), unused.url.clone()];
    let store = MemoryStore::new();
    let expected = Some(Digest::of(b"hello"));
    let result = get_into(&store, &bad.url, &mirrors, expected, false);
    assert_eq!(result.unwrap(), fetched("hello"));
    assert_eq!(
        (bad.count(), wrong.count(), good.count(), unused.count()),
        (1, 1, 1, 0)
    );
    // The mirror's other bytes are nowhere.
    assert!(!store.has(&BlobId::new(Digest::of(b"other"))).unwrap());
}

#[test]
fn other_bytes_are_a_mismatch_that_names_every_url() {
    let gone = Server::new(vec![status("404 No")]);
    let wrong = Server::new(vec![ok("other")]);
    let error = get(
        &gone.url,
        std::slice::from_ref(&wrong.url),
        Some(Digest::of(b"hello")),
    )
    .unwrap_err();
    assert!(matches!(error, HttpError::Mismatch { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "not the bytes of {}: `{}/`: HTTP status 404; `{}/`: the bytes are those of {}",
            Digest::of(b"hello"),
            gone.url,
            wrong.url,
            Digest::of(b"other")
        )
    );
}

#[test]
fn what_is_in_the_store_needs_no_network() {
    let store = MemoryStore::new();
    store.put_bytes(b"hello").unwrap();
    let expected = Some(Digest::of(b"hello"));
    let result = get_into(&store, "http://127.0.0.1:1/x", &[], expected, true);
    assert_eq!(result.unwrap(), fetched("hello"));
}

#[test]
fn spec_and_lock_must_agree() {
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    assert_eq!(super::expected(None, None).unwrap(), None);
    assert_eq!(super::expected(Some(one), None).unwrap(), Some(one));
    assert_eq!(super::expected(None, Some(one)).unwrap(), Some(one));
    assert_eq!(super::expected(Some(one), Some(one)).unwrap(), Some(one));
    let error = super::expected(Some(one), Some(two)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the spec wants {one}, locked is {two}")
    );
}

#[test]
fn offline_means_offline_but_for_files() {
    let server = Server::new(vec![ok("hello")]);
    let error = get_into(&MemoryStore::new(), &server.url, &[], None, true).unwrap_err();
    assert!(matches!(error, HttpError::Offline { .. }), "{error:?}");
    assert_eq!(server.count(), 0);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a file");
    std::fs::write(&path, "hello").unwrap();
    let mirror = Url::from_file_path(&path).unwrap().to_string();
    let result = get_into(&MemoryStore::new(), &server.url, &[mirror], None, true);
    assert_eq!(result.unwrap(), fetched("hello"));
}

#[test]
fn a_file_url_wants_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let url = |name: &str| {
        Url::from_file_path(directory.path().join(name))
            .unwrap()
            .to_string()
    };
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for name in ["missing", "pipe", ""] {
        let causes = causes(get(&url(name), &[], None));
        assert!(matches!(causes[..], [Cause::File(_)]), "{name}: {causes:?}");
    }
}

#[test]
fn more_than_the_limit_is_cut_off() {
    let endless: Answer = Box::new(|stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let server = Server::new(vec![endless]);
    let causes = causes(get(&server.url, &[], None));
    assert!(
        matches!(causes[..], [Cause::TooLarge(limit)] if limit == 1 << 20),
        "{causes:?}"
    );
}

#[test]
fn more_than_is_locked_is_a_mismatch() {
    let server = Server::new(vec![ok("hello and more")]);
    let request = Request {
        url: &server.url,
        mirrors: &[],
        expected: Some(Digest::of(b"hello")),
        size: Some(5),
        offline: false,
    };
    let error = fetch(&request, &hurried(), &MemoryStore::new(), &|_, _| {}).unwrap_err();
    assert!(matches!(error, HttpError::Mismatch { .. }), "{error:?}");
}

#[test]
fn nothing_listens() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let causes = causes(get(&format!("http://{port}/"), &[], None));
    assert!(
        matches!(&causes[..], [Cause::Transport(text)] if text.contains("refused")),
        "{causes:?}"
    );
}

#[test]
fn plain_bytes_where_tls_is_due_are_not_trusted() {
    let answers = (0..3)
        .map(|_| raw("HTTP/1.1 400 Bad Request\r\n\r\n"))
        .collect();
    let server = Server::new(answers);
    let url = server.url.replace("http:", "https:");
    let causes = causes(get(&url, &[], None));
    assert!(matches!(causes[..], [Cause::Tls(_)]), "{causes:?}");
}

#[test]
fn secrets_are_refused_and_never_shown() {
    for (url, shown) in [
        (
            "https://user:hunter2@example.com/a?token=t#f",
            "https://example.com/a?…",
        ),
        ("ftp://example.com/a", "ftp://example.com/a"),
        ("https//user:hunter2@example.com", "example.com"),
        ("file://host/a", "file://host/a"),
    ] {
        let error = get(url, &[], None).unwrap_err();
        match &error {
            HttpError::Url { url, .. } => assert_eq!(url, shown),
            other => panic!("another error: {other:?}"),
        }
        assert!(!error.to_string().contains("hunter2"));
    }
    let server = Server::new(vec![status("404 No")]);
    let error = get(&format!("{}/a?token=hunter2", server.url), &[], None).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_full_store_is_no_fault_of_the_server() {
    let server = Server::new(vec![ok("hello"), ok("hello")]);
    let request = Request {
        url: &server.url,
        mirrors: &[],
        expected: None,
        size: None,
        offline: false,
    };
    let error = fetch(&request, &hurried(), &Full, &|_, _| {}).unwrap_err();
    assert!(matches!(error, HttpError::Store(_)), "{error:?}");
    assert_eq!(server.count(), 1);
}

/// A store with no room.
struct Full;

fn no_room<T>() -> Result<T, StoreError> {
    Err(StoreError::Io {
        action: "write",
        path: "store".into(),
        source: io::ErrorKind::StorageFull.into(),
    })
}

impl immbuild_cas::store::BlobSource for Full {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        Err(StoreError::Missing(*id.digest()))
    }
}

impl immbuild_cas::store::DirectorySource for Full {
    fn directory(
        &self,
        id: &immbuild_cas::digest::DirectoryId,
    ) -> Result<Arc<immbuild_cas::tree::Directory>, StoreError> {
        Err(StoreError::Missing(*id.digest()))
    }
}

impl immbuild_cas::store::DirectorySink for Full {
    fn put_directory(
        &self,
        _: &immbuild_cas::tree::Directory,
    ) -> Result<immbuild_cas::digest::DirectoryId, StoreError> {
        no_room()
    }
}

impl Store for Full {
    fn has(&self, _: &BlobId) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn put(&self, source: &mut dyn Read) -> Result<(BlobId, u64), StoreError> {
        source.read_exact(&mut [0]).expect("the body has a byte");
        no_room()
    }

    fn record(
        &self,
        _: &str,
        _: &Digest,
    ) -> Result<Option<immbuild_cas::store::Record>, StoreError> {
        Ok(None)
    }

    fn put_record(
        &self,
        _: &str,
        _: &Digest,
        _: &immbuild_cas::store::Record,
    ) -> Result<(), StoreError> {
        no_room()
    }
}
