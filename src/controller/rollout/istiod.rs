//! What the istiods of a rollout's two revisions say of its pods: `/debug/syncz` of every replica, as a holder of a token of istiod's
//! audience may ask for it.
//!
//! Second evidence, and only where it is to be had: without a token nobody is asked, because istiod logs an error for each caller that it
//! does not know, and one that refuses is left alone for a while. Whoever does not answer in time says nothing. What an answer
//! means is decided in `rollout::syncz`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::controller::ask::{Ask, AskError, get};
use crate::rollout::seen::Synced;
use crate::rollout::syncz::{Page, synced};

/// All replicas are asked at a time, and a turn waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Replicas of one revision that are asked.
const MOST_REPLICAS: usize = 16;
/// Older istiods write every proxy of the mesh: ten thousand are about 10 MB.
const MOST_BYTES: usize = 32 << 20;
/// Who has refused is not asked again before that.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

/// Whom to ask, and how.
pub struct Question<'a> {
    pub token: &'a Path,
    /// The gateway's namespace.
    pub namespace: &'a str,
    /// Replicas of the new revision, and of the old one.
    pub new: &'a [SocketAddr],
    pub old: &'a [SocketAddr],
    /// No more often than this.
    pub every: Duration,
}

/// What both revisions said last. All of it can be lost.
#[derive(Default)]
pub struct Istiods {
    new: Side,
    old: Side,
}

#[derive(Default)]
struct Side {
    asked: Option<Instant>,
    refused: Option<Instant>,
    page: Page,
    /// The one before it.
    before: Page,
}

impl Istiods {
    /// Asks both revisions, if that is due.
    pub async fn ask(&mut self, question: &Question<'_>) {
        // It is renewed by whoever mounts it.
        let token = std::fs::read_to_string(question.token).map(|text| text.trim().to_owned()).unwrap_or_default();
        if token.is_empty() {
            *self = Istiods::default();
            return;
        }
        let path = format!("/debug/syncz?namespace={}", crate::cluster::request::encode(question.namespace));
        let about = About { path: &path, token: &token, namespace: question.namespace };
        // One that both revisions' Services lead to says nothing of which it is.
        let old: Vec<SocketAddr> = question.old.iter().filter(|at| !question.new.contains(at)).copied().collect();
        tokio::join!(self.new.ask(question.new, &about, question.every), self.old.ask(&old, &about, question.every));
    }

    /// What they say of the pod of this name and namespace.
    pub fn synced(&self, pod: &str, namespace: &str) -> Option<Synced> {
        synced(&format!("{pod}.{namespace}"), (&self.new.page, &self.new.before), &self.old.page)
    }
}

struct About<'a> {
    path: &'a str,
    token: &'a str,
    namespace: &'a str,
}

enum NoPage {
    Refused(u16),
    Silent(AskError),
}

impl Side {
    async fn ask(&mut self, replicas: &[SocketAddr], about: &About<'_>, every: Duration) {
        if self.asked.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.before = std::mem::take(&mut self.page);
        if self.refused.is_some_and(|at| at.elapsed() < AFTER_REFUSAL) {
            return;
        }
        self.asked = Some(Instant::now());
        self.refused = None;
        let answers =
            replicas.iter().take(MOST_REPLICAS).map(|replica| async { (*replica, page(*replica, about).await) });
        for (replica, answer) in futures::future::join_all(answers).await {
            match answer {
                Ok(page) => self.page.unite(page),
                Err(NoPage::Refused(status)) => {
                    tracing::debug!(%replica, status, "istiod does not tell who is connected to it");
                    self.refused = Some(Instant::now());
                }
                Err(NoPage::Silent(error)) => {
                    tracing::debug!(%replica, %error, "istiod cannot be asked who is connected")
                }
            }
        }
    }
}

async fn page(replica: SocketAddr, about: &About<'_>) -> Result<Page, NoPage> {
    let host = replica.to_string();
    let ask = Ask {
        to: replica,
        host: &host,
        path: about.path,
        tls: false,
        most_bytes: MOST_BYTES,
        token: Some(about.token),
    };
    let said = get(&ask, PATIENCE).await.map_err(NoPage::Silent)?;
    match said.status {
        200 => Page::read(&said.body, about.namespace).map_err(|e| NoPage::Silent(AskError::Unusable(e))),
        401 | 403 => Err(NoPage::Refused(said.status)),
        other => Err(NoPage::Silent(AskError::Unusable(format!("HTTP {other}")))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const EVERY: Duration = Duration::from_millis(1);

    /// An istiod on loopback, what it answers, and what it was asked.
    struct Fake {
        at: SocketAddr,
        answer: Arc<Mutex<(u16, String)>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Fake {
        /// Knows these proxies, all of which have accepted everything.
        async fn start(proxies: &[&str]) -> Fake {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let one = |id: &&str| {
                format!(
                    r#"{{"proxy":"{id}","cluster_sent":"a","cluster_acked":"a","listener_sent":"b","listener_acked":"b"}}"#
                )
            };
            let body = format!("[{}]", proxies.iter().map(one).collect::<Vec<_>>().join(","));
            let fake = Fake {
                at: listener.local_addr().unwrap(),
                answer: Arc::new(Mutex::new((200, body))),
                asked: Arc::default(),
            };
            let (answer, asked) = (Arc::clone(&fake.answer), Arc::clone(&fake.asked));
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut head = [0; 2048];
                    let n = stream.read(&mut head).await.unwrap_or(0);
                    asked.lock().unwrap().push(String::from_utf8_lossy(&head[..n]).into_owned());
                    let (status, body) = answer.lock().unwrap().clone();
                    let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let _ = stream.write_all(text.as_bytes()).await;
                }
            });
            fake
        }

        fn answers(&self, status: u16, body: &str) {
            *self.answer.lock().unwrap() = (status, body.to_owned());
        }

        fn times(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    fn token(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    async fn ask(istiods: &mut Istiods, token: &Path, new: &[SocketAddr], old: &[SocketAddr]) {
        tokio::time::sleep(EVERY * 2).await;
        istiods.ask(&Question { token, namespace: "edge", new, old, every: EVERY }).await;
    }

    #[tokio::test]
    async fn replicas_are_asked_with_the_token_and_united() {
        let (one, two, old) =
            (Fake::start(&["a.edge"]).await, Fake::start(&["b.edge"]).await, Fake::start(&["c.edge"]).await);
        let file = token("eyJhbGciOi\n");
        let mut istiods = Istiods::default();
        ask(&mut istiods, file.path(), &[one.at, two.at], &[old.at]).await;
        for (pod, says) in
            [("a", Some(Synced::Acked)), ("b", Some(Synced::Acked)), ("c", Some(Synced::Elsewhere)), ("d", None)]
        {
            assert_eq!(istiods.synced(pod, "edge"), says, "{pod}");
        }
        let head = one.asked.lock().unwrap()[0].to_lowercase();
        assert!(head.starts_with("get /debug/syncz?namespace=edge http/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: bearer eyjhbgcioi\r\n"), "{head}");
        // The same address behind both Services is of no revision.
        ask(&mut istiods, file.path(), &[one.at], &[one.at]).await;
        assert_eq!(istiods.synced("a", "edge"), Some(Synced::Acked));
    }

    #[tokio::test]
    async fn without_a_token_nobody_is_asked() {
        let istiod = Fake::start(&["a.edge"]).await;
        let (mut istiods, file) = (Istiods::default(), token("t"));
        ask(&mut istiods, file.path(), &[istiod.at], &[]).await;
        assert_eq!((istiod.times(), istiods.synced("a", "edge")), (1, Some(Synced::Acked)));
        std::fs::write(file.path(), "\n").unwrap();
        ask(&mut istiods, file.path(), &[istiod.at], &[]).await;
        assert_eq!(
            (istiod.times(), istiods.synced("a", "edge")),
            (1, None),
            "and what was known is not known any more"
        );
        ask(&mut istiods, Path::new("nowhere/at/all"), &[istiod.at], &[]).await;
        assert_eq!(istiod.times(), 1);
    }

    #[tokio::test]
    async fn whoever_refuses_is_left_alone_and_whoever_is_silent_says_nothing() {
        let (istiod, file) = (Fake::start(&["a.edge"]).await, token("t"));
        let mut istiods = Istiods::default();
        istiod.answers(500, "no");
        ask(&mut istiods, file.path(), &[istiod.at], &[]).await;
        istiod.answers(200, "<html>");
        ask(&mut istiods, file.path(), &[istiod.at], &[]).await;
        assert_eq!((istiod.times(), istiods.synced("a", "edge")), (2, None));
        for status in [401, 403] {
            let mut istiods = Istiods::default();
            istiod.answers(status, "");
            let before = istiod.times();
            for _ in 0..3 {
                ask(&mut istiods, file.path(), &[istiod.at], &[]).await;
            }
            assert_eq!((istiod.times() - before, istiods.synced("a", "edge")), (1, None), "{status}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        ask(&mut istiods, file.path(), &[closed], &[]).await;
        assert_eq!(istiods.synced("a", "edge"), None);
    }

    #[tokio::test]
    async fn whoever_says_nothing_holds_no_turn_up_and_is_asked_again_when_it_is_due() {
        let silent: Vec<TcpListener> = {
            let binds = (0..3).map(|_| TcpListener::bind("127.0.0.1:0"));
            futures::future::join_all(binds).await.into_iter().map(Result::unwrap).collect()
        };
        let (istiod, file) = (Fake::start(&["a.edge"]).await, token("t"));
        let mut all: Vec<SocketAddr> = silent.iter().map(|l| l.local_addr().unwrap()).collect();
        all.push(istiod.at);
        let mut istiods = Istiods::default();
        let every = Duration::from_secs(3600);
        let question = Question { token: file.path(), namespace: "edge", new: &all, old: &all[..1], every };
        // It would not come back if it waited for an answer.
        istiods.ask(&question).await;
        assert_eq!(istiods.synced("a", "edge"), Some(Synced::Acked), "one that answers is enough");
        istiods.ask(&question).await;
        assert_eq!(istiod.times(), 1, "asked just now");
    }
}
