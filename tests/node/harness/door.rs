//! The one way from the machine into the node's network: a port on loopback, behind it the API server.
//!
//! A socket belongs to the network that it was made in, and entering a network is the business of one thread. So one thread goes
//! inside and connects there; the sockets that it hands out work everywhere. When the node loses power its network is gone, and a new
//! thread enters the new one, behind the same port.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use super::runtime::runtime;

/// Where the API server listens in there.
const API_SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1)), 6443);

type Ask = oneshot::Sender<io::Result<TcpStream>>;

pub struct Door {
    address: SocketAddr,
    inside: Arc<Mutex<Option<mpsc::Sender<Ask>>>>,
}

impl Door {
    /// A door that leads nowhere yet: connections are closed at once.
    pub fn new() -> Result<Door> {
        let inside: Arc<Mutex<Option<mpsc::Sender<Ask>>>> = Arc::default();
        let listener = runtime().block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let way = Arc::clone(&inside);
        runtime().spawn(async move {
            // It ends with the process; an accept fails only for want of file descriptors, and then the client sees it too.
            while let Ok((outer, _)) = listener.accept().await {
                tokio::spawn(pass(outer, way.lock().expect("the way in").clone()));
            }
        });
        Ok(Door { address, inside })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it leads to the network of this process.
    pub fn enter(&self, pid: u32) -> Result<()> {
        let path = format!("/proc/{pid}/ns/net");
        let network = File::open(&path).with_context(|| path.clone())?;
        let (asks, asked) = mpsc::channel::<Ask>();
        let (entered, result) = mpsc::channel();
        std::thread::Builder::new().name("door".into()).spawn(move || {
            let moved = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
            let inside = moved.is_ok();
            // Whoever waits for the result is right below.
            let _ = entered.send(moved);
            if inside {
                for ask in asked {
                    // A client that has gone meanwhile wants no connection.
                    let _ = ask.send(TcpStream::connect_timeout(&API_SERVER, Duration::from_secs(5)));
                }
            }
        })?;
        result.recv()?.with_context(|| format!("enter {path}"))?;
        *self.inside.lock().expect("the way in") = Some(asks);
        Ok(())
    }
}

/// One connection, to its end on either side.
async fn pass(mut outer: tokio::net::TcpStream, way: Option<mpsc::Sender<Ask>>) -> Result<()> {
    let (ask, answer) = oneshot::channel();
    way.context("the node is not up")?.send(ask)?;
    let inner = answer.await??;
    inner.set_nonblocking(true)?;
    let mut inner = tokio::net::TcpStream::from_std(inner)?;
    outer.set_nodelay(true)?;
    inner.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut outer, &mut inner).await?;
    Ok(())
}
