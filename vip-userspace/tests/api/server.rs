//! The socket of vipd and who asks there.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::fake::{
    FakeHost, FakeVipd, eip, host, mode, moves, owned_vip, port, runtime, status, subnet, vpc,
};
use serde_json::Value;
use tempfile::TempDir;
use vip_userspace::api::{
    client::{Client, ClientError},
    model::{EipView, HostView, PortView, SubnetView, VipView, VpcView},
    server::{SOCKET_MODE, ServerError, Socket},
};

/// Asks with a request written by hand; returns the status code and the JSON.
fn raw(socket: &Path, request_line: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    write!(stream, "{request_line} HTTP/1.1\r\nhost: vipd\r\nconnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains("content-type: application/json"), "{head}");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (code, serde_json::from_str(body).expect("JSON"))
}

fn error_of(socket: &Path, request_line: &str, code: u16) -> String {
    let (status, body) = raw(socket, request_line);
    assert_eq!(status, code, "{request_line}: {body}");
    body.get("error").and_then(Value::as_str).expect("an error").to_owned()
}

#[test]
fn every_kind_is_listed_and_found_by_its_id() {
    let vipd = FakeVipd::start(FakeHost::default());
    let client = Client::new(&vipd.socket());
    runtime().block_on(async {
        assert_eq!(client.list::<HostView>().await.expect("hosts"), [host()]);
        assert_eq!(client.list::<VpcView>().await.expect("vpcs"), [vpc()]);
        assert_eq!(client.list::<SubnetView>().await.expect("subnets"), [subnet()]);
        assert_eq!(client.list::<PortView>().await.expect("ports").len(), 2);
        assert_eq!(client.list::<VipView>().await.expect("vips").len(), 2);
        assert_eq!(client.list::<EipView>().await.expect("eips"), [eip()]);
        assert_eq!(client.one::<HostView>("hv1").await.expect("a host"), host());
        assert_eq!(client.one::<VpcView>("blue").await.expect("a vpc"), vpc());
        assert_eq!(client.one::<SubnetView>("web").await.expect("a subnet"), subnet());
        assert_eq!(client.one::<PortView>("nginx-slave").await.expect("a port"), port("nginx-slave", 248));
        assert_eq!(client.one::<VipView>("nginx-vip").await.expect("a vip"), owned_vip());
        assert_eq!(client.one::<VipView>("spare:vip").await.expect("a vip").id, "spare:vip");
        assert_eq!(client.one::<EipView>("web-eip").await.expect("an eip"), eip());
        assert_eq!(client.status().await.expect("a status"), status());
        assert_eq!(client.history("nginx-vip").await.expect("a history"), moves());
    });
}

#[test]
fn errors_are_json_with_a_status_code() {
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    assert_eq!(error_of(&socket, "GET /v1/vips/x", 404), "no vip `x`: there are nginx-vip, spare:vip");
    assert_eq!(error_of(&socket, "GET /v1/history/x", 404), "no vip `x`: there are nginx-vip, spare:vip");
    assert_eq!(error_of(&socket, "GET /v1/groups", 404), "there is nothing at /v1/groups");
    assert_eq!(error_of(&socket, "GET /v1/groups/x", 404), "there is nothing at /v1/groups/x");
    assert_eq!(error_of(&socket, "GET /", 404), "there is nothing at /");
    assert_eq!(error_of(&socket, "GET /v1/vips/", 404), "there is nothing at /v1/vips/");
    assert!(error_of(&socket, "DELETE /v1/vips/nginx-vip", 405).contains("read only"));
    assert!(error_of(&socket, "GET /v1/vips/%ff", 400).contains("UTF-8"));
    assert_eq!(
        error_of(&socket, "GET /v1/vips/%1b%5b2J", 404),
        "no vip `\\u{1b}[2J`: there are nginx-vip, spare:vip"
    );
}

#[test]
fn many_ids_are_not_listed_in_an_error() {
    let vipd = FakeVipd::start(FakeHost { extra_ports: 20, ..FakeHost::default() });
    let error = error_of(&vipd.socket(), "GET /v1/ports/x", 404);
    assert_eq!(error, "no port `x`: `vipctl get ports` lists the 22 that there are");
}

#[test]
fn a_question_that_fails_leaves_the_server_alive() {
    let vipd = FakeVipd::start(FakeHost::default());
    assert!(error_of(&vipd.socket(), "GET /v1/eips/broken", 500).contains("its log"));
    assert_eq!(raw(&vipd.socket(), "GET /v1/eips").0, 200);
}

#[test]
fn the_socket_gets_its_permissions_and_goes_with_its_vipd() {
    let mut vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    assert_eq!(mode(&socket), 0o660);
    // Somebody who connected and never asks does not hold up the end.
    let idle = UnixStream::connect(&socket).expect("a connection");
    vipd.stop();
    drop(idle);
    assert!(!socket.exists());
    let left = fs::read_dir(socket.parent().expect("a directory")).expect("the directory").count();
    assert_eq!(left, 0, "nothing stays behind");
}

#[test]
fn a_live_vipd_is_refused_and_goes_on_answering() {
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    let error = runtime().block_on(async { Socket::bind(&socket, SOCKET_MODE) }).expect_err("refused");
    assert!(matches!(error, ServerError::Live { .. }), "{error}");
    assert!(error.to_string().contains(&socket.display().to_string()), "{error}");
    assert_eq!(raw(&socket, "GET /v1/status").0, 200);
}

#[test]
fn the_file_of_a_dead_vipd_is_replaced() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("vipd.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "a listener leaves its file");
    let socket = runtime().block_on(async { Socket::bind(&path, 0o600) }).expect("replaced");
    assert_eq!(mode(&path), 0o600);
    UnixStream::connect(&path).expect("the new one listens");
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn the_file_of_a_successor_is_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("vipd.sock");
    let socket = runtime().block_on(async { Socket::bind(&path, SOCKET_MODE) }).expect("a socket");
    fs::remove_file(&path).expect("removed by hand");
    fs::write(&path, "another").expect("written by hand");
    drop(socket);
    assert!(path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_not_removed() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("vipd.sock");
    fs::write(&path, "precious").expect("a file");
    let error = runtime().block_on(async { Socket::bind(&path, SOCKET_MODE) }).expect_err("refused");
    assert!(matches!(error, ServerError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
}

#[test]
fn a_client_says_what_is_wrong_with_the_socket() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("vipd.sock");
    let ask = |path: &Path| runtime().block_on(Client::new(path).status()).expect_err("nobody answers");

    let error = ask(&path);
    assert_eq!(
        error.to_string(),
        format!(
            "no vipd at {}: is it running? name another socket by --socket or VIPCTL_SOCKET",
            path.display()
        )
    );
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(matches!(ask(&path), ClientError::NoVipd { .. }), "a dead one's file is no vipd");
    let long = directory.path().join("x".repeat(200));
    assert!(matches!(ask(&long), ClientError::Connect { .. }), "a name that no socket can have");
}

/// Answers one question with `answer`, whatever it is, and hangs up.
fn impostor(answer: &'static str) -> ClientError {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("vipd.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut question = [0; 1024];
        let length = stream.read(&mut question).expect("a question");
        assert!(question.starts_with(b"GET /v1/status HTTP/1.1\r\n"), "{length} bytes");
        stream.write_all(answer.as_bytes()).expect("answered");
    });
    let error = runtime().block_on(Client::new(&path).status()).expect_err("no vipd");
    thread.join().expect("the impostor ended well");
    error
}

#[test]
fn a_wrong_answer_is_told_from_no_answer() {
    let error = impostor("220 mail.example ESMTP\r\n");
    assert!(matches!(error, ClientError::Exchange { .. }), "{error}");
    let error = impostor("");
    assert!(matches!(error, ClientError::Exchange { .. }), "{error}");
    let error = impostor("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    assert!(matches!(error, ClientError::Answer { .. }), "{error}");
    let error = impostor("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone");
    assert!(matches!(error, ClientError::Answer { .. }), "{error}");
    let error = impostor("HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{");
    assert!(matches!(error, ClientError::Exchange { .. }), "{error}");
}

#[test]
fn permissions_decide_who_may_ask() {
    if fs::metadata("/proc/self").expect("procfs").uid() != 0 {
        eprintln!("skipped: only root can ask as somebody else");
        return;
    }
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    // The directories above let everybody through, the socket does not.
    for directory in socket.ancestors().skip(1).take(2) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("open directories");
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_vipctl"), "--socket"])
        .arg(&socket)
        .arg("status")
        .output()
        .expect("setpriv of util-linux");
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains("failed to execute") {
        eprintln!("skipped: nobody else may run the binary: {message}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("not allowed to ask vipd"), "{message}");
}
