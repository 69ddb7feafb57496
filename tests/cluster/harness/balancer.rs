//! A TCP balancer on a loopback port, in the place of a Service with several endpoints.
//!
//! New connections go round-robin over a list that can be changed at any time; a backend that refuses
//! is passed over, as kube-proxy does once it has heard of it. It looks at no byte and knows nothing
//! of TLS. It balances connections, never requests, which is exactly what a ClusterIP does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Default)]
struct State {
    backends: Vec<SocketAddr>,
    next: usize,
    /// Connections handed to each backend so far.
    handed: Vec<(SocketAddr, u64)>,
    /// Connections for which every backend refused.
    refused: u64,
}

/// Accepts until it is dropped. Connections that are open then are cut.
pub struct Balancer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Balancer {
    pub async fn start(backends: &[SocketAddr]) -> Result<Balancer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { backends: backends.to_vec(), ..State::default() }));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Balancer { address, state, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the list for connections from now on. Open ones stay where they are.
    pub fn set(&self, backends: &[SocketAddr]) {
        self.state.lock().expect("the balancer's state").backends = backends.to_vec();
    }

    /// How many connections `backend` has been given.
    pub fn handed_to(&self, backend: SocketAddr) -> u64 {
        let state = self.state.lock().expect("the balancer's state");
        let found = state.handed.iter().find(|(address, _)| *address == backend);
        found.map_or(0, |&(_, count)| count)
    }

    /// How many connections nobody took.
    pub fn refused(&self) -> u64 {
        self.state.lock().expect("the balancer's state").refused
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Dropped, and with it every connection, when `accepting` is aborted.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Only a lack of file descriptors fails here, and the next round may have some.
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, state: Arc<Mutex<State>>) {
    let order = {
        let mut state = state.lock().expect("the balancer's state");
        let mut order = state.backends.clone();
        if !order.is_empty() {
            order.rotate_left(state.next % state.backends.len());
            state.next = state.next.wrapping_add(1);
        }
        order
    };
    for backend in order {
        let Ok(mut server) = TcpStream::connect(backend).await else {
            continue;
        };
        {
            let mut state = state.lock().expect("the balancer's state");
            match state.handed.iter_mut().find(|(known, _)| *known == backend) {
                Some((_, count)) => *count += 1,
                None => state.handed.push((backend, 1)),
            }
        }
        // Small requests and answers: Nagle would add 40 ms to some of them.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        // An error is one side's reset; the other sees its end when both are dropped.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    state.lock().expect("the balancer's state").refused += 1;
}
