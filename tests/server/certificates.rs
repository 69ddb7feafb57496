//! What clients see of TLS: versions, ALPN, and a certificate that changes under load.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use revguard::admission::Settings;
use revguard::admission::self_signed::{Authority, Leaf};
use revguard::admission::tls::{Certificates, Files};
use revguard::telemetry::{Health, Metrics};

use crate::kit::{Client, DAY, Server, client_config, echo, tls, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn both_versions_are_served_over_http_1_1() {
    let server = Server::start(Settings::default(), echo());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = client_config(&server.ca, &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = tls(server.addr, &config).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(version.version));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut client = Client::over(stream).await.unwrap();
        assert_eq!(client.post("/validate", "1").await.unwrap().status, StatusCode::OK);
    }
    let mut config = client_config(&server.ca, rustls::ALL_VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(tls(server.addr, &config).await.is_err());
    // A client that offers nothing is served, too: curl --no-alpn, old Go.
    config.alpn_protocols.clear();
    assert!(tls(server.addr, &config).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_client_with_another_ca_is_refused_and_counted() {
    let server = Server::start(Settings::default(), echo());
    let other = Authority::new(DAY).unwrap();
    assert!(Client::connect(server.addr, other.pem()).await.is_err());
    until("the count", || server.metrics.text().contains("revguard_tls_handshake_failures_total 1")).await;
}

/// Writes a version and points `..data` at it by a rename, as the kubelet does.
fn swap(root: &Path, version: &str, cert: &str, key: &str) {
    fs::create_dir(root.join(version)).unwrap();
    fs::write(root.join(version).join("tls.crt"), cert).unwrap();
    fs::write(root.join(version).join("tls.key"), key).unwrap();
    std::os::unix::fs::symlink(version, root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_rotations_under_load_fail_no_call() {
    let authority = Authority::new(DAY).unwrap();
    let leaves: Vec<Leaf> = (0..3).map(|_| authority.leaf(&[], DAY).unwrap()).collect();
    let mount = tempfile::tempdir().unwrap();
    swap(mount.path(), "..0", &leaves[0].cert_pem, &leaves[0].key_pem);
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), mount.path().join(name)).unwrap();
    }
    let metrics = Arc::new(Metrics::new());
    let files = Files { cert: mount.path().join("tls.crt"), key: mount.path().join("tls.key") };
    let (certificates, watch) = Certificates::from_files(files, Arc::clone(&metrics)).unwrap();
    let health = Health::new(&[]);
    let watching = tokio::spawn(watch.run(Duration::from_millis(20), health.task("certificate", None)));
    let server = Server::start_with(
        Settings::default(),
        echo(),
        authority.pem(),
        (Arc::clone(&certificates), Arc::clone(&metrics)),
    );

    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (addr, ca) = (server.addr, server.ca.clone());
            let (stop, calls, seen) = (Arc::clone(&stop), Arc::clone(&calls), Arc::clone(&seen));
            tokio::spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    let mut client = Client::connect(addr, &ca).await.expect("dial");
                    seen.lock().unwrap().insert(client.serial.clone());
                    for _ in 0..5 {
                        let answer = client.post("/validate", "1").await.expect("call");
                        assert_eq!(answer.status, StatusCode::OK);
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();

    for (version, served) in [("..1", 2), ("..2", 3)] {
        let leaf = &leaves[served - 1];
        // First a pair that does not belong together, which must change nothing.
        let bad = format!("{version}bad");
        swap(mount.path(), &bad, &leaf.cert_pem, &leaves[0].key_pem);
        until("the refusal", || metrics.certificate_errors() == served as u64 - 1).await;
        let before = calls.load(Ordering::Relaxed);
        until("calls with the old one", || calls.load(Ordering::Relaxed) > before + 40).await;
        assert_eq!(seen.lock().unwrap().len(), served - 1);

        swap(mount.path(), version, &leaf.cert_pem, &leaf.key_pem);
        until("the new serial at a client", || seen.lock().unwrap().len() == served).await;
        assert!(seen.lock().unwrap().contains(&certificates.facts().unwrap().serial));
    }
    stop.store(true, Ordering::Release);
    for client in clients {
        client.await.expect("no call failed");
    }
    assert_eq!(metrics.certificate_reloads(), 2);
    assert!(calls.load(Ordering::Relaxed) > 80);
    watching.abort();
}
