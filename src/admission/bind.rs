//! Opening a listening socket, with errors that say which flag to change.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel completes before they are accepted. The API server opens at most
/// some hundreds at a time; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} ({flag}): {source}. {}", fix(source, flag))]
pub struct BindError {
    addr: SocketAddr,
    flag: &'static str,
    #[source]
    source: io::Error,
}

fn fix(source: &io::Error, flag: &str) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("Another process listens there: stop it or choose another port with {flag}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("Ports below 1024 need a privilege: choose a higher one with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("No interface has this address: name one that has, or 0.0.0.0, with {flag}")
        }
        _ => format!("Choose another address with {flag}"),
    }
}

/// Listens on `addr`; `flag` is what named it, for the error. An unspecified IPv6 address takes
/// IPv4 too, whatever the node's `bindv6only` says, and falls back to `0.0.0.0` on a node without
/// IPv6. Must be called within a Tokio runtime.
pub fn bind(addr: SocketAddr, flag: &'static str) -> Result<TcpListener, BindError> {
    let failed = |source| BindError { addr, flag, source };
    match listen(addr) {
        Ok(listener) => Ok(listener),
        Err(error) if addr.is_ipv6() && addr.ip().is_unspecified() && no_ipv6(&error) => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
            tracing::info!(%addr, %v4, %error, "no IPv6 here, listening on IPv4 only");
            listen(v4).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// A kernel without IPv6 has no such family; one where it is switched off has no such address.
fn no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Otherwise a restart within a minute finds its own old connections in the way.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn a_taken_port_names_the_flag_and_the_way_out() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind(addr, "--listen").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {addr} (--listen): ")), "{error}");
        assert!(error.contains("choose another port with --listen"), "{error}");
    }

    #[tokio::test]
    async fn the_unspecified_address_takes_ipv4() {
        let listener = bind("[::]:0".parse().unwrap(), "--listen").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
