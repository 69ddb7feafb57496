//! The balancer spreads connections and passes over backends that refuse.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::balancer::Balancer;

/// Answers every connection with its name, after it has read a byte.
async fn backend(name: &'static str) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if stream.read_u8().await.is_ok() {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        }
    });
    Ok((address, serving))
}

async fn ask(balancer: &Balancer) -> Result<String> {
    let mut stream = TcpStream::connect(balancer.address()).await?;
    let mut answer = String::new();
    // With no backend the connection is closed or reset: an empty answer either way.
    if stream.write_all(b"?").await.is_ok() {
        let _ = stream.read_to_string(&mut answer).await;
    }
    Ok(answer)
}

pub async fn passes_over_a_dead_backend() -> Result<()> {
    let (one, one_serves) = backend("one").await?;
    let (two, _two_serves) = backend("two").await?;
    let balancer = Balancer::start(&[one, two]).await?;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(ask(&balancer).await?);
    }
    assert_eq!(answers, ["one", "two", "one", "two"]);
    assert_eq!((balancer.handed_to(one), balancer.handed_to(two)), (2, 2));

    one_serves.abort();
    // Its listener is closed once it has been dropped.
    assert!(one_serves.await.is_err_and(|error| error.is_cancelled()));
    for _ in 0..3 {
        assert_eq!(ask(&balancer).await?, "two");
    }

    balancer.set(&[one]);
    assert_eq!(ask(&balancer).await?, "");
    assert_eq!(balancer.refused(), 1);
    balancer.set(&[]);
    assert_eq!(ask(&balancer).await?, "");
    balancer.set(&[two]);
    assert_eq!(ask(&balancer).await?, "two");
    Ok(())
}
