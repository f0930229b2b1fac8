//! The layer's log: `TESSERA_LOG` is a filter in the syntax of tracing's `EnvFilter`; without it only errors are told, on stderr.

use std::sync::Once;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log, once a process. An application that uses tracing itself and set a subscriber first keeps its own.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let wanted = std::env::var("TESSERA_LOG").ok().filter(|filter| !filter.is_empty());
        let (filter, wrong) = match wanted.as_deref().map(EnvFilter::try_new) {
            None => (EnvFilter::new("error"), None),
            Some(Ok(filter)) => (filter, None),
            Some(Err(error)) => (EnvFilter::new("error"), Some(error)),
        };
        let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        // An error here means that a subscriber is already set: then the log goes there.
        let _ = tracing_subscriber::registry().with(filter).with(output).try_init();
        if let Some(error) = wrong {
            tracing::error!(
                "TESSERA_LOG={:?} is not a filter ({error}); try TESSERA_LOG=info",
                wanted.unwrap_or_default()
            );
        }
    });
}
